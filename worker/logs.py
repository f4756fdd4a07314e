"""Logs as events with fields: JSON lines in the container, readable text on a terminal.

Only the root logger's own handler is ours; the RunPod SDK prints its lines itself and is left
alone. `extra={...}` becomes fields, and what looks like a secret is never written.
"""

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["json", "text"]

HIDDEN = "***"

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SECRET_NAME = re.compile(
    r"secret|token|passw|authorization|credential|(api|access|private)_?key", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"(?P<before>X-Amz-(?:Signature|Credential|Security-Token)=|\bBearer\s+)[^\s&\"']+"
    r"|(?P<user>://[^/\s:@]*:)[^/\s@]+(?=@)",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6  # masking fewer characters would garble innocent text
_QUIET = (
    "urllib3",
    "botocore",
    "boto3",
    "s3transfer",
    "PIL",
    "websocket",
    "asyncio",
    "httpx",
    "httpcore",
)

_job_id: ContextVar[str | None] = ContextVar("job_id", default=None)


@contextmanager
def job_logging(job_id: str) -> Iterator[None]:
    """Give every event of this context, and of contexts copied from it, the job's id."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


def configure(
    log_format: LogFormat,
    level: str,
    *,
    secrets: Collection[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send all events to one stream; called again, it replaces what it set before.

    Args:
        log_format: "json", one object a line, or "text".
        level: name of the lowest level that is written: DEBUG, INFO, WARNING, ERROR.
        secrets: values that are masked wherever they occur, the bucket's keys above all.
        stream: stderr when None, so that a program's own result stays alone on stdout.
    """
    handler = _Handler(stream)
    redact = _Redaction(secrets)
    handler.setFormatter(_JSONLines(redact) if log_format == "json" else _Text(redact))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told from handlers that others put on the root."""


class _Redaction:
    def __init__(self, secrets: Collection[str]) -> None:
        long_enough = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        self._values = sorted(long_enough, key=len, reverse=True)

    def text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return _SECRET_TEXT.sub(rf"\g<before>\g<user>{HIDDEN}", text)

    def field(self, name: str, value: object) -> Any:
        """The value as JSON can carry it."""
        if _SECRET_NAME.search(name):
            return HIDDEN
        if isinstance(value, Mapping):
            return {str(key): self.field(str(key), inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.field("", inner) for inner in value]
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if abs(value) < float("inf") else str(value)
        return self.text(str(value))


class _Fields(logging.Formatter):
    """What both formats say about an event."""

    def __init__(self, redact: _Redaction) -> None:
        super().__init__()
        self._redact = redact

    def _event(self, record: logging.LogRecord) -> str:
        return self._redact.text(record.getMessage())

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {
            name: self._redact.field(name, value)
            for name, value in record.__dict__.items()
            if name not in _OWN
        }
        job_id = _job_id.get()
        return fields if job_id is None else {"job_id": job_id} | fields

    def _exception(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and record.exc_info[0] is not None:
            return self._redact.text(self.formatException(record.exc_info))
        return None


class _JSONLines(_Fields):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": self._event(record),
        }
        # A field must not displace what every line has.
        line |= {name: value for name, value in self._fields(record).items() if name not in line}
        if exception := self._exception(record):
            line["exception"] = exception
        return json.dumps(line, ensure_ascii=False)


class _Text(_Fields):
    def format(self, record: logging.LogRecord) -> str:
        clock = _time(record).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{name}={_bare(value)}" for name, value in self._fields(record).items())
        line = f"{clock} {record.levelname:<7} {record.name}: {self._event(record)}"
        exception = self._exception(record)
        return line + (f"  {fields}" if fields else "") + (f"\n{exception}" if exception else "")


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _bare(value: object) -> str:
    """A value without quotes where that is plain to read."""
    if isinstance(value, str) and re.fullmatch(r"[^\s\"=]+", value):
        return value
    return json.dumps(value, ensure_ascii=False)


class LineSplitter:
    """Turns chunks of output into lines; a carriage return ends one too, as progress bars do.

    Args:
        max_bytes: a longer line comes in pieces of this size, so memory stays bounded.
    """

    _ENDS = re.compile(rb"[\r\n]+")

    def __init__(self, max_bytes: int = 16 * 1024) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that `chunk` completes; empty ones are left out."""
        *whole, self._rest = self._ENDS.split(self._rest + chunk)
        while len(self._rest) > self._max_bytes:
            whole.append(self._rest[: self._max_bytes])
            self._rest = self._rest[self._max_bytes :]
        return [piece for line in whole for piece in self._pieces(line)]

    def flush(self) -> list[str]:
        """What is left when the output has ended without a line end."""
        rest, self._rest = self._rest, b""
        return self._pieces(rest)

    def _pieces(self, line: bytes) -> list[str]:
        size = self._max_bytes
        return [
            line[start : start + size].decode(errors="replace")
            for start in range(0, len(line), size)
        ]
