"""Files that nodes report, and the folder where they lie."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.errors import ExecutionFailed

# What nodes call their files: SaveImage, SaveVideo and SaveWEBM say `images`, VideoHelperSuite
# `gifs`, others `videos` and `audio`. Text, 3D scenes and the like are not delivered.
KINDS = ("images", "gifs", "videos", "audio")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file as its node reports it.

    Attributes:
        node: id of the graph's node that wrote it.
        kind: the key it was reported under, one of `KINDS`.
        filename: name without folders.
        subfolder: folders below ComfyUI's folder of that type; empty for none.
        folder_type: "output", "temp" or "input".
        animated: whether the node says that it moves, though it is among the `images`.
    """

    node: str
    kind: str
    filename: str
    subfolder: str = ""
    folder_type: str = "output"
    animated: bool = False


def parse_outputs(node: str, output: object) -> tuple[OutputFile, ...]:
    """The files in what a node reports (`executed.output`, or its part of a history entry)."""
    if not isinstance(output, Mapping):
        return ()
    animated = output.get("animated")
    moves = isinstance(animated, list) and any(animated)
    return tuple(
        OutputFile(
            node=node,
            kind=kind,
            filename=item["filename"],
            subfolder=item.get("subfolder") or "",
            folder_type=item.get("type") or "output",
            animated=moves and kind == "images",
        )
        for kind in KINDS
        for item in _items(output.get(kind))
        if isinstance(item.get("filename"), str) and item["filename"]
    )


class OutputFolder:
    """ComfyUI's output folder, where it is on our disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def path(self, file: OutputFile) -> Path:
        """Where the file lies.

        Raises:
            ExecutionFailed: it is not there, or what the node reports leads out of the folder.
        """
        path = (self._folder / file.subfolder / file.filename).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise missing_output(file)
        return path

    def delete_folder(self, subfolder: str) -> None:
        """Remove a folder below this one, with all in it."""
        path = (self._folder / subfolder).resolve()
        if path != self._folder and path.is_relative_to(self._folder):
            shutil.rmtree(path, ignore_errors=True)


def missing_output(file: OutputFile) -> ExecutionFailed:
    """The error for a file that was reported and cannot be read."""
    return ExecutionFailed(
        f"Node {file.node} reported an output file that is not there.",
        details={"node": file.node, "filename": file.filename},
    )


def _items(value: object) -> list[Mapping[str, str]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
