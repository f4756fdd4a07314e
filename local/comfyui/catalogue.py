"""Node specs, as `/object_info` serves them: what ComfyUI 0.33 says of the nodes we know.

`object_info.json` is recorded from ComfyUI 0.33.0 with empty model folders; the lists of files are
filled in from the folders at each look.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from local.comfyui.folders import Folders

_RECORDED: Final = Path(__file__).with_name("object_info.json")
# Input of a node -> kind of model files it offers.
_MODEL_LISTS: Final = {
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("ImageOnlyCheckpointLoader", "ckpt_name"): "checkpoints",
    ("LoraLoader", "lora_name"): "loras",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("LoraLoaderBypass", "lora_name"): "loras",
    ("LoraLoaderBypassModelOnly", "lora_name"): "loras",
    ("UNETLoader", "unet_name"): "diffusion_models",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("DualCLIPLoader", "clip_name1"): "text_encoders",
    ("DualCLIPLoader", "clip_name2"): "text_encoders",
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("ControlNetLoader", "control_net_name"): "controlnet",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
}


class Catalogue:
    """The node classes there are, with their inputs, types, ranges and choices as of now."""

    def __init__(self, folders: Folders) -> None:
        recorded = json.loads(_RECORDED.read_text(encoding="utf-8"))
        self._nodes: Mapping[str, dict[str, Any]] = recorded["nodes"]
        self._choices = _choices(folders)

    def __contains__(self, class_type: object) -> bool:
        return class_type in self._nodes

    def names(self) -> list[str]:
        """Every node class."""
        return list(self._nodes)

    def info(self, class_type: str) -> dict[str, Any]:
        """The whole entry of `/object_info` for one class."""
        info = copy.deepcopy(self._nodes[class_type])
        for category in info["input"].values():
            for name, spec in category.items():
                self._fill(class_type, name, spec)
        return info

    def inputs(self, class_type: str) -> dict[str, dict[str, list[Any]]]:
        """The `required` and `optional` inputs of a class: name -> [type, constraints]."""
        inputs = self.info(class_type)["input"]
        return {kind: inputs.get(kind, {}) for kind in ("required", "optional")}

    def outputs(self, class_type: str) -> Sequence[Any]:
        """Types of the output sockets: a list or, for older classes, a tuple; errors show which."""
        node = self._nodes[class_type]
        outputs: list[Any] = node["output"]
        return outputs if "output_matchtypes" in node else tuple(outputs)

    def is_output(self, class_type: str) -> bool:
        """Whether nodes of this class are worth running for their own sake."""
        return bool(self._nodes[class_type]["output_node"])

    def takes_lists(self, class_type: str) -> bool:
        """Whether a node gets whole lists instead of being run once per element."""
        return bool(self._nodes[class_type]["is_input_list"])

    def gives_lists(self, class_type: str) -> list[bool]:
        """Which outputs are lists."""
        flags: list[bool] = self._nodes[class_type]["output_is_list"]
        return flags

    def hidden(self, class_type: str) -> Mapping[str, str]:
        """Inputs that an older class gets from the server: name -> `PROMPT` and the like."""
        hidden = self._nodes[class_type]["input"].get("hidden", {})
        return {name: kind for name, kind in hidden.items() if isinstance(kind, str)}

    def keyed_by_node(self, class_type: str) -> bool:
        """Whether a node's id is part of its cache key (it asked for `UNIQUE_ID`)."""
        hidden = self._nodes[class_type]["input"].get("hidden", {})
        return any("UNIQUE_ID" in spec for spec in hidden.values())

    def _fill(self, class_type: str, name: str, spec: list[Any]) -> None:
        choices = self._choices.get((class_type, name))
        if choices is None:
            return
        if isinstance(spec[0], list):
            spec[0] = choices()
        else:
            spec[1]["options"] = choices()


def _choices(folders: Folders) -> dict[tuple[str, str], Callable[[], list[str]]]:
    def models_of(kind: str) -> Callable[[], list[str]]:
        return lambda: folders.models(kind) or []

    choices = {where: models_of(kind) for where, kind in _MODEL_LISTS.items()}
    choices["LoadImage", "image"] = folders.input_images
    choices["LoadImageMask", "image"] = folders.input_images
    choices["LoadAudio", "audio"] = lambda: folders.input_files("audio/", "video/")
    choices["LoadVideo", "file"] = lambda: folders.input_files("video/")
    choices["LoadImageTextDataSetFromFolder", "folder"] = folders.input_folders
    choices["VAELoader", "vae_name"] = lambda: [*(folders.models("vae") or []), "pixel_space"]
    choices["TrainLoraNode", "existing_lora"] = lambda: [
        "[None]",
        *(folders.models("loras") or []),
    ]
    return choices
