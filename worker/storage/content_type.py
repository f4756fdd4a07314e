"""Content types of what this worker stores, by file name; the machine's own tables don't matter."""

from pathlib import PurePath
from typing import Final

DEFAULT: Final = "application/octet-stream"
_BY_SUFFIX: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".ogg": "audio/ogg",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".toml": "application/toml",
    ".zip": "application/zip",
    ".safetensors": DEFAULT,
}
_PLAYS_IN_PLACE: Final = ("image/", "video/", "audio/", "text/plain", "application/json")


def content_type_for(path: PurePath | str) -> str:
    """The content type of a file or key by its suffix, in either case."""
    return _BY_SUFFIX.get(PurePath(path).suffix.lower(), DEFAULT)


def disposition(name: str, content_type: str) -> str:
    """A Content-Disposition: what a browser can show plays in place, the rest is saved.

    Args:
        name: suggested file name; characters that would end the quoted string become `_`.
        content_type: decides between inline and attachment.
    """
    kind = "inline" if content_type.startswith(_PLAYS_IN_PLACE) else "attachment"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    return f'{kind}; filename="{plain}"'
