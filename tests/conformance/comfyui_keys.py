"""ComfyUI's own LoRA key maps of models built without weights; run by its Python in its folder.

Reads `architectures.json` (family -> the model configurations that ComfyUI detects for it), writes
`{family: {lora key: shape}}` to the file named. A key that is another shape in another of the
family's configurations is left out, and so are biases and other parameters.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_CLIP: Final = {"clip_l": (12, 768), "clip_g": (32, 1280), "clip_h": (24, 1024)}
_ENCODERS: Final = {
    "sd15": ("clip_l",),
    "sd2": ("clip_h",),
    "sdxl_refiner": ("clip_g",),
    "flux1": ("clip_l",),
    **dict.fromkeys(("sdxl", "sd3_medium", "sd35_medium", "sd35_large"), ("clip_l", "clip_g")),
}


class Encoder:
    """Stands for a text encoder: the loader looks only at the names of its weights."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.shapes: dict[str, tuple[int, int]] = {}
        for name in names:
            layers, width = _CLIP[name]
            for layer in range(layers):
                at = f"{name}.transformer.text_model.encoder.layers.{layer}."
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    self.shapes[f"{at}self_attn.{part}.weight"] = (width, width)
                self.shapes[f"{at}mlp.fc1.weight"] = (4 * width, width)
                self.shapes[f"{at}mlp.fc2.weight"] = (width, 4 * width)

    def state_dict(self) -> dict[str, tuple[int, int]]:
        """Names to shapes, in place of tensors."""
        return self.shapes


def unet_keys(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """What ComfyUI's loader maps for one model, built on PyTorch's device without memory."""
    torch, lora = importlib.import_module("torch"), importlib.import_module("comfy.lora")
    detection = importlib.import_module("comfy.model_detection")
    found = detection.model_config_from_unet_config(dict(config), None)
    found.set_inference_dtype(torch.float16, None)
    model = found.get_model({}, "", device=torch.device("meta"))
    weights, keys = model.state_dict(), {}
    for key, target in lora.model_lora_keys_unet(model, {}).items():
        name, part = (target, None) if isinstance(target, str) else target[:2]
        if name.endswith(".weight") and name in weights:
            shape = list(weights[name].shape)
            if part is not None:  # a slice of the weight: dimension, start, length
                shape[part[0]] = part[2]
            keys[key] = shape
    return keys


def family_keys(family: str, configs: list[Mapping[str, Any]]) -> dict[str, list[int]]:
    """All keys of a family, its text encoders' too."""
    keys: dict[str, list[int] | None] = {}
    for config in configs:
        for key, shape in unet_keys(config).items():
            keys[key] = shape if keys.setdefault(key, shape) == shape else None
    if family in _ENCODERS:
        encoder = Encoder(_ENCODERS[family])
        lora = importlib.import_module("comfy.lora")
        for key, name in lora.model_lora_keys_clip(encoder, {}).items():
            keys[key] = list(encoder.shapes[name])
    return {key: shape for key, shape in keys.items() if shape is not None}


def main(architectures: Path, target: Path) -> None:
    """Write the key maps of every family."""
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = [sys.argv[0], "--cpu"]  # ComfyUI reads its own options from here
    importlib.import_module("comfy.options").enable_args_parsing()
    families = json.loads(architectures.read_text())
    keys = {family: family_keys(family, configs) for family, configs in families.items()}
    target.write_text(json.dumps(keys))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
