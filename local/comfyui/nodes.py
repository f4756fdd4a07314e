"""All node functions, the checks nodes make of their own inputs, and what they read from disk."""

import hashlib
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from local.comfyui import nodes_image, nodes_media, nodes_model, nodes_training, nodes_video
from local.comfyui.folders import Folders
from local.comfyui.node import Inputs, NodeFunction
from local.comfyui.validation import OwnChecks

# Loader -> its input that names a file, and what its refusal calls that.
_INPUT_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "LoadAudio": ("audio", "audio"),
    "LoadImage": ("image", "image"),
    "LoadImageMask": ("image", "image"),
    "LoadVideo": ("file", "video"),
}


def functions() -> Mapping[str, NodeFunction]:
    """What each node class does."""
    return {
        **nodes_image.NODES,
        **nodes_media.NODES,
        **nodes_model.NODES,
        **nodes_video.NODES,
        **nodes_training.NODES,
    }


def own_checks(folders: Folders) -> OwnChecks:
    """What nodes refuse before a prompt is queued: loaders a file that is not there."""

    def load(what: str, name: str) -> str | None:
        try:
            found = folders.input_file(name).exists()
        except ValueError:
            found = False
        return None if found else f"Invalid {what} file: {name}"

    return {loader: (name, partial(load, what)) for loader, (name, what) in _INPUT_FILES.items()}


def fingerprint(folders: Folders) -> Callable[[str, Inputs], Any]:
    """What a node's result depends on besides its inputs: the bytes of the file it loads."""

    def of(class_type: str, inputs: Inputs) -> Any:
        file = inputs.get(_INPUT_FILES[class_type][0]) if class_type in _INPUT_FILES else None
        if not isinstance(file, str):
            return None
        try:
            return hashlib.sha256(folders.input_file(file).read_bytes()).hexdigest()
        except (OSError, ValueError):  # gone since the check: LoadImage itself will say so
            return uuid.uuid4().hex

    return of
