"""Nodes around masks, sounds and videos that come as files."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from local.comfyui.folders import SavePath
from local.comfyui.masks import Masks, alpha_mask
from local.comfyui.node import Inputs, NodeFunction, Output, Run
from local.comfyui.saving import save
from local.comfyui.values import Pictures, Video

_CHANNELS: Final = {"alpha": "A", "red": "R", "green": "G", "blue": "B"}


@dataclass(frozen=True)
class Sound:
    """ComfyUI's AUDIO: samples as signed 16-bit numbers, one row a channel."""

    samples: Any
    rate: int


def load_mask(run: Run, inputs: Inputs) -> Output:
    """LoadImageMask: one channel of a file; of alpha the opposite."""
    with Image.open(run.folders.input_file(inputs["image"])) as image:
        upright = ImageOps.exif_transpose(image)
        if inputs["channel"] == "alpha":
            return Output((Masks((alpha_mask(upright),)),))
        return Output((Masks((upright.convert("RGB").getchannel(_CHANNELS[inputs["channel"]]),)),))


def mask_to_image(_run: Run, inputs: Inputs) -> Output:
    """MaskToImage: grey pictures."""
    return Output((Pictures(tuple(mask.convert("RGB") for mask in inputs["mask"].frames)),))


def image_to_mask(_run: Run, inputs: Inputs) -> Output:
    """ImageToMask: one channel of the pictures."""
    channel = _CHANNELS[inputs["channel"]]
    frames = (frame.convert("RGBA").getchannel(channel) for frame in inputs["image"].frames)
    return Output((Masks(tuple(frames)),))


def invert_mask(_run: Run, inputs: Inputs) -> Output:
    """InvertMask."""
    return Output((Masks(tuple(ImageChops.invert(mask) for mask in inputs["mask"].frames)),))


def grow_mask(_run: Run, inputs: Inputs) -> Output:
    """GrowMask: by so many pixels, or smaller."""
    size = 2 * abs(inputs["expand"]) + 1
    change = ImageFilter.MaxFilter if inputs["expand"] >= 0 else ImageFilter.MinFilter
    return Output((Masks(tuple(mask.filter(change(size)) for mask in inputs["mask"].frames)),))


def load_audio(run: Run, inputs: Inputs) -> Output:
    """LoadAudio: all samples of a file's sound."""
    with av.open(str(run.folders.input_file(inputs["audio"]))) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("s16p", stream.layout, stream.rate)
        parts = [part for frame in container.decode(stream) for part in resampler.resample(frame)]
        samples = np.concatenate([part.to_ndarray() for part in parts], axis=1)
        return Output((Sound(samples, stream.rate),))


def save_audio(run: Run, inputs: Inputs) -> Output:
    """SaveAudio: a FLAC file in the output folder."""
    sound: Sound = inputs["audio"]
    body = io.BytesIO()
    layout = "mono" if len(sound.samples) == 1 else "stereo"
    with av.open(body, "w", format="flac") as target:
        stream = target.add_stream("flac", rate=sound.rate, layout=layout)
        packed = np.ascontiguousarray(sound.samples.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = sound.rate
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    path = SavePath(run.folders.output, inputs["filename_prefix"])
    name = path.next_name(".flac")
    save(run.faults, path.folder / name, body.getvalue())
    entry = {"filename": name, "subfolder": path.subfolder, "type": "output"}
    return Output((sound,), {"audio": [entry]})


def load_video(run: Run, inputs: Inputs) -> Output:
    """LoadVideo: every frame, and the rate."""
    return Output((_read_video(run.folders.input_file(inputs["file"])),))


def video_components(_run: Run, inputs: Inputs) -> Output:
    """GetVideoComponents: frames, sound (none here), rate, bits, pixel format."""
    video: Video = inputs["video"]
    return Output((video.pictures, None, video.fps, 8, "yuv420p"))


def _read_video(path: Path) -> Video:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [Image.fromarray(f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
        return Video(Pictures(tuple(frames)), float(stream.average_rate or 1))


NODES: Final[Mapping[str, NodeFunction]] = {
    "GetVideoComponents": video_components,
    "GrowMask": grow_mask,
    "ImageToMask": image_to_mask,
    "InvertMask": invert_mask,
    "LoadAudio": load_audio,
    "LoadImageMask": load_mask,
    "LoadVideo": load_video,
    "MaskToImage": mask_to_image,
    "SaveAudio": save_audio,
}
