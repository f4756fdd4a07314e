"""ComfyUI's console output as events of our log."""

import logging
import re

from worker.child import LineSplitter

log = logging.getLogger("comfyui")

_ERROR_LINE = re.compile(r"^(Traceback|\[?(ERROR|CRITICAL)\b|!!! |\w*(Error|Exception)\b)")
_WARNING_LINE = re.compile(r"^\[?WARN|\bWarning: ", re.IGNORECASE)
_PROGRESS_LINE = re.compile(r"\d+%\|")


class OutputLog:
    """Hands ComfyUI's lines to our log."""

    def __init__(self) -> None:
        self._lines = LineSplitter()

    def __call__(self, chunk: bytes) -> None:
        """Take a chunk of output."""
        for line in self._lines.feed(chunk):
            log.log(_level(line), "%s", line)


def _level(line: str) -> int:
    """ComfyUI prints without levels; its progress bars are of no use in a log."""
    if _PROGRESS_LINE.search(line):
        return logging.DEBUG
    if _ERROR_LINE.search(line):
        return logging.ERROR
    return logging.WARNING if _WARNING_LINE.search(line) else logging.INFO
