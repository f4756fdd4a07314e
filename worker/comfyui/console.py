"""ComfyUI's console output as events of our log."""

import logging
import re

from worker.child import LineSplitter
from worker.comfyui.lora_log import LoraLog

log = logging.getLogger("comfyui")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# DETAIL is a level of its own from ComfyUI 0.38 on, between DEBUG and INFO.
_LEVEL = re.compile(r"\[(DEBUG|DETAIL|INFO|WARNING|ERROR|CRITICAL)\]\s*")
_ERROR_LINE = re.compile(r"Traceback \(most recent|!!! |\w*(Error|Exception)\b", re.IGNORECASE)
_WARNING_LINE = re.compile(r"\S*warning\b", re.IGNORECASE)
# Progress bars, and what it says when a client leaves before its last status message.
_NOISE = re.compile(r"\d+%\||send error: Cannot write to closing transport")


class OutputLog:
    """Hands ComfyUI's lines to the logger `comfyui`, at the level that they name.

    Args:
        loras: takes the lines about LoRAs that were not applied: thousands for one file, so they
            are logged as one when another line comes.
    """

    def __init__(self, loras: LoraLog) -> None:
        self._lines = LineSplitter()
        self._loras = loras
        self._unapplied = 0

    def __call__(self, chunk: bytes) -> None:
        """Take a chunk of output."""
        for line in self._lines.feed(chunk):
            level, text = parse_line(line)
            if not text:
                continue
            if self._loras.take(text):
                self._unapplied += 1
                continue
            self._summarise()
            log.log(level, "%s", text)

    def _summarise(self) -> None:
        if self._unapplied:
            log.warning("parts of a lora were not applied", extra={"lines": self._unapplied})
            self._unapplied = 0


def parse_line(line: str) -> tuple[int, str]:
    """Level and text of a line, free of colour; libraries print theirs without a level."""
    text = _COLOUR.sub("", line).strip()
    if _NOISE.search(text):
        return logging.DEBUG, text
    if named := _LEVEL.match(text):
        return logging.getLevelNamesMapping().get(named[1], logging.DEBUG), text[named.end() :]
    if _ERROR_LINE.match(text):
        return logging.ERROR, text
    return (logging.WARNING if _WARNING_LINE.match(text) else logging.INFO), text
