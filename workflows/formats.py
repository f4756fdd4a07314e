"""Which file formats a workflow's nodes write, as far as that can be told before they run. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from workflows.template import Workflow

# ComfyUI's own saving nodes that write one format only.
_WRITES: Final = {
    "SaveAnimatedPNG": "png",
    "SaveAnimatedWEBP": "webp",
    "SaveAudio": "flac",
    "SaveAudioMP3": "mp3",
    "SaveAudioOpus": "opus",
    "SaveImage": "png",
    "SaveWEBM": "webm",
}
_FIRST: Final = {"SaveVideo": "mp4"}  # what a node writes whose `format` says "auto"


def written_formats(workflow: Workflow) -> tuple[str, ...]:
    """The formats of the outputs, in the order declared; those of unknown nodes are left out."""
    found = (_written(workflow.graph[output.node]) for output in workflow.outputs)
    return tuple(dict.fromkeys(name for name in found if name))


def _written(node: Mapping[str, Any]) -> str | None:
    kind, chosen = node["class_type"], node["inputs"].get("format")
    if kind in _FIRST:
        return chosen if isinstance(chosen, str) and chosen != "auto" else _FIRST[kind]
    if kind == "VHS_VideoCombine" and isinstance(chosen, str):  # "video/h264-mp4", "image/gif"
        return chosen.rpartition("/")[2].rpartition("-")[2]
    return _WRITES.get(kind)
