"""Nodes that load, scale and save pictures."""

import json
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image, ImageOps, ImageSequence

from local.comfyui.folders import SavePath
from local.comfyui.masks import Masks, alpha_mask
from local.comfyui.node import Inputs, NodeFunction, Output, Run
from local.comfyui.saving import save
from local.comfyui.values import Frames, Pictures

_FILTERS: Final = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def load_image(run: Run, inputs: Inputs) -> Output:
    """LoadImage: every frame of a file, upright."""
    with Image.open(run.folders.input_file(inputs["image"])) as image:
        mask = alpha_mask(ImageOps.exif_transpose(image))
        frames = [
            ImageOps.exif_transpose(frame).convert("RGB") for frame in ImageSequence.Iterator(image)
        ]
    same = tuple(frame for frame in frames if frame.size == frames[0].size)
    return Output((Pictures(same), Masks((mask,))))


def empty_image(_run: Run, inputs: Inputs) -> Output:
    """EmptyImage: one colour."""
    colour = inputs["color"]
    rgb = (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    frame = Image.new("RGB", (inputs["width"], inputs["height"]), rgb)
    return Output((Pictures((frame,) * inputs["batch_size"]),))


def image_scale(_run: Run, inputs: Inputs) -> Output:
    """ImageScale: to a size; a side of 0 follows the other."""
    pictures: Pictures = inputs["image"]
    width, height = inputs["width"], inputs["height"]
    if width == 0 and height == 0:
        return Output((pictures,))
    old_width, old_height = pictures.size
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    method = _FILTERS[inputs["upscale_method"]]
    if inputs["crop"] == "center":
        frames = [ImageOps.fit(frame, (width, height), method) for frame in pictures.frames]
    else:
        frames = [frame.resize((width, height), method) for frame in pictures.frames]
    return Output((Pictures(tuple(frames)),))


def image_scale_by(_run: Run, inputs: Inputs) -> Output:
    """ImageScaleBy: by a factor."""
    return Output((_resized(inputs, inputs["scale_by"]),))


def image_scale_to_total_pixels(_run: Run, inputs: Inputs) -> Output:
    """ImageScaleToTotalPixels: to a number of megapixels (of 1024 x 1024), aspect kept."""
    width, height = inputs["image"].size
    factor = (inputs["megapixels"] * 1024 * 1024 / (width * height)) ** 0.5
    return Output((_resized(inputs, factor, inputs.get("resolution_steps", 1)),))


def image_crop(_run: Run, inputs: Inputs) -> Output:
    """ImageCrop: a rectangle, moved inside the picture."""
    pictures: Pictures = inputs["image"]
    left = min(inputs["x"], pictures.size[0] - 1)
    top = min(inputs["y"], pictures.size[1] - 1)
    right = min(left + inputs["width"], pictures.size[0])
    bottom = min(top + inputs["height"], pictures.size[1])
    return _each(pictures, lambda frame: frame.crop((left, top, right, bottom)))


def image_batch(_run: Run, inputs: Inputs) -> Output:
    """ImageBatch: two batches as one, in the size of the first."""
    first: Pictures = inputs["image1"]
    second: Frames = inputs["image2"].frames
    fitted = tuple(ImageOps.fit(frame, first.size) for frame in second)
    return Output((Pictures(first.frames + fitted),))


def image_from_batch(_run: Run, inputs: Inputs) -> Output:
    """ImageFromBatch: some of a batch, never none."""
    frames: Frames = inputs["image"].frames
    start = min(inputs["batch_index"], len(frames) - 1)
    return Output((Pictures(frames[start : start + inputs["length"]]),))


def repeat_image_batch(_run: Run, inputs: Inputs) -> Output:
    """RepeatImageBatch: the batch again and again."""
    return Output((Pictures(inputs["image"].frames * inputs["amount"]),))


def get_image_size(_run: Run, inputs: Inputs) -> Output:
    """GetImageSize: width, height and number."""
    pictures: Pictures = inputs["image"]
    return Output((*pictures.size, len(pictures.frames)))


def unchanged(_run: Run, inputs: Inputs) -> Output:
    """Hand the picture on: what the node would do to it does not show here."""
    return Output((inputs["image"],))


def save_image(run: Run, inputs: Inputs) -> Output:
    """SaveImage: PNG files in the output folder."""
    return _save(run, inputs["images"], inputs["filename_prefix"], "output")


def preview_image(run: Run, inputs: Inputs) -> Output:
    """PreviewImage: PNG files in the temporary folder."""
    return _save(run, inputs["images"], "ComfyUI_temp_stand", "temp")


def metadata_of(run: Run) -> dict[str, str]:
    """What ComfyUI writes into its files: the graph, and the workflow if the client sent one."""
    if not run.context.metadata:
        return {}
    extra: Mapping[str, Any] = run.extra_pnginfo or {}
    return {
        "prompt": json.dumps(run.graph),
        **{key: json.dumps(value) for key, value in extra.items()},
    }


def _save(run: Run, pictures: Pictures, prefix: str, folder_type: str) -> Output:
    folder = run.folders.by_type(folder_type) or run.folders.output
    width, height = pictures.size
    path = SavePath(folder, prefix, width=width, height=height)
    metadata = metadata_of(run)
    files: list[dict[str, str]] = []
    for frame in pictures.frames:
        name = path.next_name(".png")
        save(run.faults, path.folder / name, run.context.png.encode(frame, metadata))
        files.append({"filename": name, "subfolder": path.subfolder, "type": folder_type})
    return Output((pictures,), {"images": list(files)})


def _resized(inputs: Inputs, factor: float, multiple: int = 1) -> Pictures:
    pictures: Pictures = inputs["image"]
    size = tuple(max(1, round(side * factor / multiple) * multiple) for side in pictures.size)
    method = _FILTERS[inputs["upscale_method"]]
    return Pictures(tuple(frame.resize((size[0], size[1]), method) for frame in pictures.frames))


def _each(pictures: Pictures, change: Any) -> Output:
    return Output((Pictures(tuple(change(frame) for frame in pictures.frames)),))


NODES: Final[Mapping[str, NodeFunction]] = {
    "EmptyImage": empty_image,
    "GetImageSize": get_image_size,
    "ImageBatch": image_batch,
    "ImageCrop": image_crop,
    "ImageFromBatch": image_from_batch,
    "ImageScale": image_scale,
    "ImageScaleBy": image_scale_by,
    "ImageScaleToTotalPixels": image_scale_to_total_pixels,
    "ImageUpscaleWithModel": unchanged,
    "LTXVPreprocess": unchanged,
    "LoadImage": load_image,
    "PreviewImage": preview_image,
    "RepeatImageBatch": repeat_image_batch,
    "SaveImage": save_image,
}
