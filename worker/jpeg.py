"""What a JPEG's bytes say before anything is decoded. Pure."""

import re
from typing import Final

MAX_SCANS: Final = 100  # a progressive file of a camera or the web has about 10
_SEGMENT: Final = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])")  # no stuffing, no restart, no start
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_START: Final = b"\xff\xd8\xff"
END: Final = b"\xff\xd9"
_WHOLE_PROGRESSION: Final = 6  # scans from which a progressive picture is all there


def scans(data: bytes) -> int:
    """Scans of the first picture; counting ends just above `MAX_SCANS`.

    Segments are stepped over, so that what a thumbnail or a video behind has does not count.
    """
    return _segments(data).count(_START_OF_SCAN)


def decoding_scale(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """By how much libjpeg scales down while it decodes, as Pillow's `draft` asks it to."""
    room = min(size[0] // wanted[0], size[1] // wanted[1])
    return next((scale for scale in (8, 4, 2) if room >= scale), 1)


def lacks_end(data: bytes) -> bool:
    """Whether this is a JPEG that stops before its end mark, in its only scan or its last ones."""
    if not data.startswith(_START):
        return False
    found = _segments(data)
    count = found.count(_START_OF_SCAN)
    return _END_OF_IMAGE not in found and (count == 1 or count >= _WHOLE_PROGRESSION)


def _segments(data: bytes) -> list[int]:
    """The markers to the end of the first picture."""
    found: list[int] = []
    at, count = 2, 0
    while count <= MAX_SCANS and (match := _SEGMENT.search(data, at)):
        marker = match[1][0]
        found.append(marker)
        count += marker == _START_OF_SCAN
        if marker == _END_OF_IMAGE:
            break
        length = int.from_bytes(data[match.end() : match.end() + 2])
        at = match.end() + max(2, length)
    return found
