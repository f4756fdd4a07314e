"""Videos, sounds and other files that a job brings: on our disk, and looked into before ComfyUI is.

Only what holds the file together is read, no picture and no sound: how long it lasts, and what
streams it has.
"""

from pathlib import Path
from typing import Final, Literal

import av

from worker.contract_fields import Source
from worker.errors import InvalidInput
from worker.resources import JobContext, Resources
from workflows.binding import field_of

# What FFmpeg calls a container -> the suffix by which ComfyUI's loaders know it. Nothing else is
# opened: a playlist could name other files and addresses.
_SUFFIXES: Final = {
    "mov": ".mp4",
    "matroska": ".webm",
    "avi": ".avi",
    "wav": ".wav",
    "mp3": ".mp3",
    "flac": ".flac",
    "ogg": ".ogg",
    "aac": ".aac",
}
_OPTIONS: Final = {"format_whitelist": ",".join(_SUFFIXES), "protocol_whitelist": "file"}
_NAMES: Final = {
    "video": "a video (mp4, mov, webm, mkv, avi)",
    "audio": "a sound (wav, mp3, flac, ogg, opus, aac, m4a)",
}
Kind = Literal["image", "mask", "video", "audio", "file"]


def fetched(
    source: Source, name: str, kind: Kind, resources: Resources, context: JobContext
) -> Path:
    """A file of the job's in the job's folder, with the suffix that fits what is in it.

    Args:
        source: where it comes from.
        name: of the workflow's input.
        kind: `video` and `audio` are looked into; any other file is taken as it is.
        resources: the worker's; its settings have the limits.
        context: the job's.

    Raises:
        SourceForbidden, SourceUnreachable, InvalidInput: with the input's field.
    """
    settings, where = resources.settings, field_of(name)
    path = context.folder / f"{name}.bin"
    resources.sources.save(
        source,
        path,
        field=where,
        max_bytes=settings.input_max_bytes,
        check_cancelled=context.cancel.check,
    )
    if kind not in _NAMES:
        return path
    suffix, seconds = _probed(path, kind, where)
    if seconds > settings.input_max_s:
        raise InvalidInput(
            f"{where}: lasts {seconds:.0f} s; {settings.input_max_s:g} s are allowed.",
            field=where,
            details={"max_s": settings.input_max_s},
        )
    return path.rename(path.with_suffix(suffix))


def _probed(path: Path, kind: str, where: str) -> tuple[str, float]:
    """Suffix, and duration in seconds. Raises InvalidInput for what is no such file."""
    try:
        with av.open(str(path), options=_OPTIONS) as container:
            streams = container.streams.video if kind == "video" else container.streams.audio
            known = [name for name in container.format.name.split(",") if name in _SUFFIXES]
            if streams and known:
                return _SUFFIXES[known[0]], _seconds(container)
    except (av.FFmpegError, ValueError, OSError):
        pass  # said below, as for a container that has no such stream
    raise InvalidInput(f"{where}: is not {_NAMES[kind]}, or is damaged.", field=where)


def _seconds(container: av.container.InputContainer) -> float:
    """How long it lasts; 0 where the file does not say, as some streamed recordings do not."""
    return max(0.0, (container.duration or 0) / av.time_base)
