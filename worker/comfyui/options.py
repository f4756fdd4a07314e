"""How our ComfyUI is started."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


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
        return [
            *(self.python, *self.entry),
            *("--listen", self.host, "--port", str(port)),
            *("--output-directory", str(self.output_directory)),
            *("--input-directory", str(self.input_directory)),
            *("--temp-directory", str(self.temp_directory)),
            *("--extra-model-paths-config", str(model_folders)),
            *("--disable-auto-launch", *self.extra_args),
        ]

    def model_folders_yaml(self) -> str:
        """The extra-model-paths file: YAML, of which JSON is a part; folders one a line."""
        folders = {kind: "\n".join(map(str, paths)) for kind, paths in self.models.items()}
        return json.dumps({"worker": folders} if folders else {}, ensure_ascii=False, indent=1)

    def make_folders(self) -> None:
        """Make the folders that it reads and writes."""
        for folder in (self.output_directory, self.input_directory, self.temp_directory):
            folder.mkdir(parents=True, exist_ok=True)
