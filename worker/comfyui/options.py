"""How our ComfyUI is started."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# What a worker has no use for, and what would cost it time, memory or disk. Each line is a wish in
# the words of several versions, newest first; a version that knows none of them does without.
_WISHES: Final = (
    (("--offline",), ("--disable-api-nodes",)),  # renamed after 0.33; both save 2 s of the start
    (("--disable-assets",),),  # on by default from 0.38 on: would scan and register every output
    (("--database-url", "sqlite:///:memory:"),),
)
_OPTION: Final = re.compile(r"""add_argument\(\s*["'](--[a-z0-9-]+)""")


def start_arguments(directory: Path) -> tuple[str, ...]:
    """The arguments that this ComfyUI knows, by its own `comfy/cli_args.py`.

    ComfyUI ends at once on an argument that it does not know, so none is given on the strength of a
    version's number. Where there is no such file (the stand-in), those of 0.33.0.
    """
    try:
        text = (directory / "comfy" / "cli_args.py").read_text("utf-8", "replace")
    except OSError:
        return ("--disable-api-nodes", "--database-url", "sqlite:///:memory:")
    known = frozenset(_OPTION.findall(text))
    chosen: list[str] = []
    for words in _WISHES:
        chosen += next((option for option in words if option[0] in known), ())
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class ComfyUIOptions:
    """How ComfyUI is started.

    Attributes:
        directory: its working directory, where `entry` is found.
        output_directory: where it writes outputs.
        input_directory: where it looks for inputs.
        temp_directory: under it, ComfyUI makes and empties a folder `temp`.
        python: the interpreter of its environment.
        entry: what the interpreter runs.
        host: the address it listens at; loopback, since it authenticates nobody.
        port: its port; 0 chooses a free one, once.
        extra_args: further options of its command line.
        user_directory: where it keeps settings of its own; its own folder when None.
        models: further folders by kind of model ("loras", "checkpoints"), looked at first to last.
        environment: its whole environment; ours when None. Leave the bucket's keys out.
        start_timeout_s: from its start until it must answer.
        stop_timeout_s: how long SIGTERM may take.
        expected_version: refuse any other (`comfyui_version` of `/system_stats`).
    """

    directory: Path
    output_directory: Path
    input_directory: Path
    temp_directory: Path
    python: str = "python"
    user_directory: Path | None = None
    entry: Sequence[str] = ("main.py",)
    host: str = "127.0.0.1"
    port: int = 0
    extra_args: Sequence[str] = ()
    models: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    environment: Mapping[str, str] | None = None
    start_timeout_s: float = 300.0
    stop_timeout_s: float = 10.0
    expected_version: str | None = None

    def argv(self, port: int, model_folders: Path) -> list[str]:
        """The command line; `model_folders` is the file that `model_folders_yaml` goes to."""
        user = ("--user-directory", str(self.user_directory)) if self.user_directory else ()
        return [
            *(self.python, *self.entry),
            *("--listen", self.host, "--port", str(port)),
            *("--output-directory", str(self.output_directory)),
            *("--input-directory", str(self.input_directory)),
            *("--temp-directory", str(self.temp_directory)),
            *("--extra-model-paths-config", str(model_folders), *user),
            *("--disable-auto-launch", *self.extra_args),
        ]

    def model_folders_yaml(self) -> str:
        """The extra-model-paths file: YAML, of which JSON is a part; folders one a line."""
        folders = {kind: "\n".join(map(str, paths)) for kind, paths in self.models.items()}
        return json.dumps({"worker": folders} if folders else {}, ensure_ascii=False, indent=1)

    def make_folders(self) -> None:
        """Make the folders that it reads and writes."""
        for folder in (
            self.output_directory,
            self.input_directory,
            self.temp_directory,
            *((self.user_directory,) if self.user_directory else ()),
        ):
            folder.mkdir(parents=True, exist_ok=True)
