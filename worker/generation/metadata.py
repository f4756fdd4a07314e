"""What ComfyUI writes into its files beside the picture: prompt and graph, taken out again."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av

from worker.errors import OutputDamaged

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf"})
_WEBP_TEXTS: Final = frozenset({b"EXIF", b"XMP "})
_WEBP_FLAGS: Final = 0x08 | 0x04  # of VP8X: there is EXIF, there is XMP
_NOTHING_IN_IT: Final = frozenset({".gif", ".jpg", ".jpeg", ".txt", ".json", ".csv"})


def stripped(path: Path) -> Path:
    """The file without metadata, beside it; pictures and streams stay as they are encoded.

    A GIF or JPEG has none of ComfyUI's, and other files are not known well enough to be changed:
    those come back as they are.

    Raises:
        OutputDamaged: the file is not what its beginning says.
    """
    target = path.with_name(f"{path.stem}.stripped{path.suffix}")
    with path.open("rb") as file:
        head = file.read(12)
    try:
        if head.startswith(_PNG):
            target.write_bytes(_PNG + b"".join(_png_parts(path.read_bytes())))
        elif head[8:] == b"WEBP":
            body = b"WEBP" + b"".join(_webp_parts(path.read_bytes()))
            target.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
        elif path.suffix.lower() in _NOTHING_IN_IT or not _remuxed(path, target):
            return path
    except (struct.error, av.FFmpegError, ValueError) as error:
        target.unlink(missing_ok=True)
        raise OutputDamaged(
            "ComfyUI wrote a file that does not open; try the job again.",
            details={"reason": type(error).__name__},
        ) from error
    return target


def _png_parts(body: bytes) -> Iterator[bytes]:
    place = len(_PNG)
    while place < len(body):
        (length,) = struct.unpack_from(">I", body, place)
        part = body[place : place + length + 12]  # length, type and CRC are 4 bytes each
        if part[4:8] not in _PNG_TEXTS:
            yield part
        place += len(part)


def _webp_parts(body: bytes) -> Iterator[bytes]:
    place = 12
    while place < len(body):
        (length,) = struct.unpack_from("<I", body, place + 4)
        part = body[place : place + 8 + length + length % 2]
        if part[:4] == b"VP8X":
            part = part[:8] + bytes([part[8] & ~_WEBP_FLAGS]) + part[9:]
        if part[:4] not in _WEBP_TEXTS:
            yield part
        place += len(part)


def _remuxed(path: Path, target: Path) -> bool:
    """Copy the streams of a clip or sound into a new file; False for what is neither."""
    try:
        source = av.open(str(path))
    except (av.FFmpegError, ValueError):
        return False
    with source, av.open(str(target), "w") as sink:
        copies = {
            stream.index: sink.add_stream_from_template(stream)
            for stream in (*source.streams.video, *source.streams.audio)
        }
        for packet in source.demux(*(source.streams[index] for index in copies)):
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                sink.mux(packet)
    return True
