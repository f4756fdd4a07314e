"""ComfyUI's own words made fit for a customer: one line, bounded, without paths of this machine."""

import re

MAX_CHARACTERS = 300

# A folder part: what stands before the file's name, unless it belongs to an address (`://host/a`).
_FOLDERS = re.compile(r"(?<![\w./~-])~?/(?=[\w.])(?:[\w.@+~-]+/)*")


def plain(text: object, limit: int = MAX_CHARACTERS) -> str:
    """`text` on one line, file names without their folders, at most `limit` characters."""
    # Cut first: what is never shown must cost nothing, however long it is.
    line = " ".join(str(text)[: 4 * limit].split())
    line = _FOLDERS.sub("", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"
