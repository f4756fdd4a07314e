"""All node functions, the checks nodes make of their own inputs, and what they read from disk."""

import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from local.comfyui import nodes_image, nodes_model, nodes_training, nodes_video
from local.comfyui.folders import Folders
from local.comfyui.node import Inputs, NodeFunction
from local.comfyui.validation import OwnChecks


def functions() -> Mapping[str, NodeFunction]:
    """What each node class does."""
    return {
        **nodes_image.NODES,
        **nodes_model.NODES,
        **nodes_video.NODES,
        **nodes_training.NODES,
    }


def own_checks(folders: Folders) -> OwnChecks:
    """What nodes refuse before a prompt is queued: LoadImage a file that is not there."""

    def load_image(name: str) -> str | None:
        try:
            found = folders.input_file(name).exists()
        except ValueError:
            found = False
        return None if found else f"Invalid image file: {name}"

    return {"LoadImage": ("image", load_image)}


def fingerprint(folders: Folders) -> Callable[[str, Inputs], Any]:
    """What a node's result depends on besides its inputs: the bytes of the file LoadImage reads."""

    def of(class_type: str, inputs: Inputs) -> Any:
        if class_type != "LoadImage" or not isinstance(inputs["image"], str):
            return None
        try:
            return hashlib.sha256(folders.input_file(inputs["image"]).read_bytes()).hexdigest()
        except (OSError, ValueError):  # gone since the check: LoadImage itself will say so
            return uuid.uuid4().hex

    return of
