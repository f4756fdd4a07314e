"""Bytes that a job brings: from a public URL, in the job itself as base64, or from our bucket."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from lora_registry.store import ObjectMissing
from worker.contract_fields import Source
from worker.errors import InvalidInput, SourceForbidden, SourceUnreachable
from worker.sources.public_http import FetchLimits, OnShare, PublicHttp
from worker.storage import ObjectStore
from worker.storage.transfer import CheckCancelled

T = TypeVar("T")

_DATA_URI = re.compile(r"data:(?P<type>[^,]{0,256}),", re.IGNORECASE)
_CHUNK_CHARS: Final = 1024 * 1024  # a multiple of 4, so that pieces decode on their own


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Limits of what is fetched.

    Args:
        max_bytes: where a caller names no limit of its own.
        timeout_s: for the whole of one fetch by URL of up to `max_bytes`.
        stall_s: for what may be larger, LoRAs and archives: longest without a byte.
        min_rate: likewise, in bytes a second over all; it may be less for the first `timeout_s`.
        key_prefixes: where a `key` may point; none at all when empty.
    """

    max_bytes: int = 25_000_000
    timeout_s: float = 20.0
    stall_s: float = 30.0
    min_rate: float = 200_000.0
    key_prefixes: tuple[str, ...] = ("inputs/", "characters/", "base/outputs/")


class SourceReader:
    """Reads sources within their limits; safe to share between threads.

    Args:
        http: fetches URLs; tests with a server on loopback bring one that may.
    """

    def __init__(
        self, store: ObjectStore, options: SourceOptions, *, http: PublicHttp | None = None
    ) -> None:
        self._store = store
        self._options = options
        self._http = http or PublicHttp()

    def read(
        self,
        source: Source,
        *,
        field: str,
        max_bytes: int | None = None,
        check_cancelled: CheckCancelled | None = None,
    ) -> bytes:
        """The bytes of a source.

        Args:
            source: one of url, base64, key.
            field: the source's place in the job (`init_image`), for the errors.
            max_bytes: the options' limit when None.
            check_cancelled: called ten times a second; what it raises ends the fetch.

        Raises:
            SourceForbidden: a URL or key that we will not touch.
            SourceUnreachable: not there, too large, too slow, cut short.
            InvalidInput: base64 that is none, or too much of it.
            StoreError: the bucket did not answer.
        """
        body = io.BytesIO()
        limit = self._options.max_bytes if max_bytes is None else max_bytes
        if source.key is not None:
            self._check_key(source.key, limit, f"{field}.key")
            return _of_bucket(self._store.get, source.key, f"{field}.key").body
        self._write(source, body, field=field, max_bytes=limit, check_cancelled=check_cancelled)
        return body.getvalue()

    def save(
        self,
        source: Source,
        path: Path,
        *,
        field: str,
        max_bytes: int,
        check_cancelled: CheckCancelled | None = None,
        on_share: OnShare | None = None,
    ) -> int:
        """Write a source to a temporary path of the caller's; returns its size in bytes.

        Nothing is left at `path` on failure. Arguments and errors as of `read`; `on_share` is told
        how much of a URL's body has come, from 0 to 1.
        """
        try:
            if source.key is not None:
                size = self._check_key(source.key, max_bytes, f"{field}.key")
                download = partial(self._store.download, path=path, check_cancelled=check_cancelled)
                _of_bucket(download, source.key, f"{field}.key")
                return size
            with path.open("wb") as file:
                return self._write(
                    source,
                    file,
                    field=field,
                    max_bytes=max_bytes,
                    check_cancelled=check_cancelled,
                    on_share=on_share,
                )
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _write(
        self,
        source: Source,
        sink: BinaryIO,
        *,
        field: str,
        max_bytes: int,
        check_cancelled: CheckCancelled | None,
        on_share: OnShare | None = None,
    ) -> int:
        if source.base64 is not None:
            return decode(source.base64, sink, field=f"{field}.base64", max_bytes=max_bytes)
        return self._http.fetch(
            source.url or "",
            sink,
            field=f"{field}.url",
            limits=self._limits(max_bytes),
            check_cancelled=check_cancelled,
            on_share=on_share,
        )

    def _limits(self, max_bytes: int) -> FetchLimits:
        """A picture has its time; what may be larger has as long as it keeps coming."""
        options = self._options
        if max_bytes <= options.max_bytes:
            return FetchLimits(max_bytes, options.timeout_s)
        return FetchLimits(max_bytes, options.timeout_s, options.stall_s, options.min_rate)

    def _check_key(self, key: str, max_bytes: int, field: str) -> int:
        allowed = self._options.key_prefixes
        if not key.startswith(allowed) or ".." in key.split("/"):
            names = ", ".join(allowed) or "nothing at all"
            raise SourceForbidden(f"{field}: must begin with one of {names}.", field=field)
        size = _of_bucket(self._store.head, key, field).size
        if size > max_bytes:
            raise SourceUnreachable(f"{field} is larger than {max_bytes} bytes.", field=field)
        return size


def _of_bucket(verb: Callable[[str], T], key: str, field: str) -> T:
    try:
        return verb(key)
    except ObjectMissing as error:
        raise SourceUnreachable(f"{field}: there is no object {key!r}.", field=field) from error


def decode(text: str, sink: BinaryIO, *, field: str, max_bytes: int) -> int:
    """Write what a text stands for, base64 or a data: URI; returns its size in bytes.

    Strict, and measured before a byte is decoded.

    Raises:
        InvalidInput: neither of the two, or too much of it.
    """
    uri = _DATA_URI.match(text)
    if uri is None:
        return _from_base64(text, 0, sink, field, max_bytes)
    if uri["type"].lower().endswith(";base64"):
        encoded = text if "%" not in text else uri[0] + unquote(text[uri.end() :])
        return _from_base64(encoded, uri.end(), sink, field, max_bytes)
    body = unquote_to_bytes(text[uri.end() :])
    if len(body) > max_bytes:
        raise _too_large(field, max_bytes)
    return sink.write(body)


def _from_base64(text: str, start: int, sink: BinaryIO, field: str, max_bytes: int) -> int:
    length = len(text) - start
    padding = 2 if text.endswith("==") else int(text.endswith("="))
    size = length // 4 * 3 - padding
    if length % 4 or length == 0:
        raise _no_base64(field)
    if size > max_bytes:
        raise _too_large(field, max_bytes)
    written = 0
    for offset in range(start, len(text), _CHUNK_CHARS):
        try:
            piece = base64.b64decode(text[offset : offset + _CHUNK_CHARS], validate=True)
        except ValueError:
            raise _no_base64(field) from None
        written += sink.write(piece)
    if written != size:  # padding in the middle, where two pieces meet
        raise _no_base64(field)
    return size


def _too_large(field: str, max_bytes: int) -> InvalidInput:
    return InvalidInput(f"{field}: must not exceed {max_bytes} bytes.", field=field)


def _no_base64(field: str) -> InvalidInput:
    return InvalidInput(f"{field}: must be standard base64 with padding.", field=field)
