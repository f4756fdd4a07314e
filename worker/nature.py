"""What a file is that came in another's place, by its first bytes. Pure."""

import re
from typing import Final

_MP4_BRANDS: Final = re.compile(rb"....ftyp(mp4|isom|iso[2-9]|M4V|qt  |avc1|3gp)", re.DOTALL)
_PAGE: Final = re.compile(
    rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body|script)", re.I | re.S
)
_XML: Final = re.compile(rb"\s*<(\?xml|svg|error)", re.I)
_SVG: Final = re.compile(rb"<svg[\s>]", re.I)
_LOGIN: Final = re.compile(rb"log.?in|sign.?in|password", re.I)
_STARTS: Final = (
    (b"version https://git-lfs.github.com/spec/", "a git-lfs pointer instead of its file"),
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"GGUF", "a GGUF model"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 picture"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"II\x1a\0\0\0HEAPCCDR", "a camera's raw file"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
)
_PICTURE: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|BM.{4}\0\0\0\0|II\*\0|MM\0\*|RIFF.{4}WEBP"
    rb"|.{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1|avi[fs])",
    re.DOTALL,
)
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05].", re.DOTALL)
_TORCH_ZIP: Final = re.compile(rb"PK\x03\x04.{26}[^/]{0,100}/data\.pkl", re.DOTALL)
_KINDS: Final = (
    (_MP4_BRANDS, "a video"),
    (_TORCH_ZIP, "a pickle (.pt, .ckpt, .bin)"),
    (_PICKLE, "a pickle (.pt, .ckpt, .bin)"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb'\s*\{\s*"'), "a JSON message of a server"),
)


def is_picture(head: bytes) -> bool:
    """Whether a file begins as one of the formats that `worker.media` reads."""
    return _PICTURE.match(head) is not None


def nature_of(head: bytes) -> str | None:
    """A noun with its article for what begins so ("a web page"), or None.

    Args:
        head: the first bytes, 512 or more where there are.
    """
    known = next((noun for start, noun in _STARTS if head.startswith(start)), None)
    if known is not None:
        return known
    if _PAGE.match(head):
        return "a login page" if _LOGIN.search(head) else "a web page"
    if _XML.match(head):
        return "an SVG drawing" if _SVG.search(head) else "an XML message of a server"
    return next((noun for kind, noun in _KINDS if kind.match(head)), None)
