"""Nodes that make videos: real files, from frames that are the stand-in's."""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.container import OutputContainer
from PIL import Image

from local.comfyui.folders import SavePath
from local.comfyui.node import Inputs, NodeFunction, Output, Run
from local.comfyui.nodes_image import metadata_of
from local.comfyui.saving import save
from local.comfyui.values import Conditioning, Frames, Latent, Pictures, Video

_ENCODERS: Final = {"h264": "libx264", "av1": "libsvtav1", "vp9": "libvpx-vp9"}
_CONTAINERS: Final = {"mp4": "mp4", "mkv": "matroska", "webm": "webm"}
_WEBP_METHODS: Final = {"default": 4, "fastest": 0, "slowest": 6}


def svd_conditioning(_run: Run, inputs: Inputs) -> Output:
    """SVD_img2vid_Conditioning: a video that starts from a picture."""
    pictures: Pictures = inputs["init_image"]
    latent = Latent(inputs["width"], inputs["height"], inputs["video_frames"], video=True)
    start = pictures.frames[0]
    return Output((Conditioning("", start), Conditioning("", start), latent))


def image_to_video(_run: Run, inputs: Inputs) -> Output:
    """WanImageToVideo, LTXVImgToVideo: prompts and perhaps a picture."""
    pictures: Pictures | None = inputs.get("start_image") or inputs.get("image")
    start = pictures.frames[0] if pictures is not None else None
    positive = Conditioning(inputs["positive"].text, start)
    return Output((positive, inputs["negative"], _video_latent(inputs)))


def empty_video_latent(_run: Run, inputs: Inputs) -> Output:
    """EmptyHunyuanLatentVideo, EmptyLTXVLatentVideo, Wan22ImageToVideoLatent."""
    pictures: Pictures | None = inputs.get("start_image")
    return Output((_video_latent(inputs, pictures.frames[:1] if pictures is not None else ()),))


def create_video(_run: Run, inputs: Inputs) -> Output:
    """CreateVideo: frames with a rate."""
    return Output((Video(inputs["images"], inputs["fps"]),))


def save_video(run: Run, inputs: Inputs) -> Output:
    """SaveVideo: mp4, mkv or webm; `auto` is mp4 with h264, AV1 in webm."""
    if "format" not in inputs:  # no check before the prompt is queued notices that
        message = "SaveVideo.execute() missing 1 required positional argument: 'format'"
        raise TypeError(message)
    video: Video = inputs["video"]
    kind = inputs["format"] if inputs["format"] in _CONTAINERS else "mp4"
    codec = inputs.get("format.codec", inputs.get("codec", "auto"))
    if codec not in _ENCODERS:
        codec = "av1" if kind == "webm" else "h264"
    options = {"crf": str(inputs.get("format.codec.encoding.crf", 23 if codec == "h264" else 30))}
    frames = video.pictures.frames
    body = _encoded(frames, video.fps, (kind, codec), options, metadata_of(run))
    return _saved(run, inputs, f".{kind}", body, video)


def save_webm(run: Run, inputs: Inputs) -> Output:
    """SaveWEBM: vp9 or av1."""
    pictures: Pictures = inputs["images"]
    options = {"crf": str(inputs["crf"])}
    kind = ("webm", inputs["codec"])
    body = _encoded(pictures.frames, inputs["fps"], kind, options, metadata_of(run))
    return _saved(run, inputs, ".webm", body, pictures)


def save_animated_webp(run: Run, inputs: Inputs) -> Output:
    """SaveAnimatedWEBP: one file with all frames."""
    options = {
        "lossless": inputs["lossless"],
        "quality": inputs["quality"],
        "method": _WEBP_METHODS[inputs["method"]],
    }
    return _animated(run, inputs, "WEBP", options)


def save_animated_png(run: Run, inputs: Inputs) -> Output:
    """SaveAnimatedPNG: one file with all frames."""
    return _animated(run, inputs, "PNG", {"compress_level": inputs["compress_level"]})


def _video_latent(inputs: Inputs, origin: Frames = ()) -> Latent:
    size = (inputs["width"], inputs["height"])
    return Latent(*size, inputs["length"], video=True, origin=origin)


def _animated(run: Run, inputs: Inputs, kind: str, options: Mapping[str, Any]) -> Output:
    pictures: Pictures = inputs["images"]
    first, *others = pictures.frames
    duration_ms = round(1000 / inputs["fps"])
    body = io.BytesIO()
    first.save(body, kind, save_all=True, append_images=others, duration=duration_ms, **options)
    return _saved(run, inputs, f".{kind.lower()}", body.getvalue(), pictures)


def _encoded(
    frames: Frames,
    fps: float,
    kind: tuple[str, str],
    options: Mapping[str, str],
    metadata: Mapping[str, str],
) -> bytes:
    """A whole video file. Odd sides are an error of the h264 encoder, as with ComfyUI."""
    container_name, codec = kind
    body = io.BytesIO()
    flags = {"movflags": "use_metadata_tags"} if container_name == "mp4" else {}
    with av.open(body, "w", format=_CONTAINERS[container_name], container_options=flags) as target:
        target.metadata.update(metadata)
        _encode(target, frames, Fraction(round(fps * 1000), 1000), codec, dict(options))
    return body.getvalue()


def _encode(
    target: OutputContainer,
    frames: Sequence[Image.Image],
    rate: Fraction,
    codec: str,
    options: dict[str, str],
) -> None:
    stream = target.add_stream(_ENCODERS[codec], rate=rate, options=_quick(codec, options))
    assert isinstance(stream, av.VideoStream)  # noqa: S101 - tells the type checker what it is
    stream.width, stream.height = frames[0].size
    stream.pix_fmt = "yuv420p10le" if codec == "av1" else "yuv420p"
    for image in frames:
        frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        target.mux(stream.encode(frame))
    target.mux(stream.encode(None))


def _quick(codec: str, options: dict[str, str]) -> dict[str, str]:
    """The encoder's fastest settings: nobody looks at these pictures twice."""
    speed = {
        "h264": {"preset": "veryfast"},
        "vp9": {"deadline": "realtime", "cpu-used": "8", "b": "0"},
        "av1": {"preset": "12"},
    }
    return {**options, **speed[codec]}


def _saved(run: Run, inputs: Inputs, suffix: str, body: bytes, value: Any) -> Output:
    path = SavePath(run.folders.output, inputs["filename_prefix"])
    name = path.next_name(suffix)
    save(run.faults, path.folder / name, body)
    file = {"filename": name, "subfolder": path.subfolder, "type": "output"}
    still = isinstance(value, Pictures) and suffix in (".webp", ".png") and len(value.frames) == 1
    return Output((value,), {"images": [file]} if still else {"images": [file], "animated": [True]})


NODES: Final[Mapping[str, NodeFunction]] = {
    "CreateVideo": create_video,
    "EmptyHunyuanLatentVideo": empty_video_latent,
    "EmptyLTXVLatentVideo": empty_video_latent,
    "LTXVImgToVideo": image_to_video,
    "SVD_img2vid_Conditioning": svd_conditioning,
    "SaveAnimatedPNG": save_animated_png,
    "SaveAnimatedWEBP": save_animated_webp,
    "SaveVideo": save_video,
    "SaveWEBM": save_webm,
    "Wan22ImageToVideoLatent": empty_video_latent,
    "WanFirstLastFrameToVideo": image_to_video,
    "WanImageToVideo": image_to_video,
}
