"""LoRA files on local disk, in a folder that ComfyUI sees as one of its `loras`.

    {folder}/{sha256}.safetensors            whole and verified, or not there at all
    {folder}/.cache/{sha256}.lock            held by the one that downloads it
    {folder}/.cache/{sha256}.verified        size and time it had when it was verified
    {folder}/.cache/parts/{sha256}-{size}/   a download on its way; its name reserves the room

Several processes may share the folder, and it survives restarts. All locks are `flock`s, which the
kernel drops with their process: nobody waits for the dead. A file in use is held by a shared lock
on the file itself, so that no process evicts it; its last use is its access time.
"""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lora_registry.cache_directory import CacheDirectory, CacheUsage, LockTimeout, exclusive
from lora_registry.character import UsableVersion
from lora_registry.errors import (
    CacheBusy,
    CacheDiskFull,
    LoraCorrupt,
    RegistryError,
    VersionNotFound,
)
from lora_registry.store import ObjectMissing, Store, StoreError
from lora_registry.tensorfile import read_header, sha256_of

log = logging.getLogger(__name__)

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

CheckCancelled = Callable[[], None] | None


class LoraCache:
    """The files that this machine has; safe to share between threads, as is its folder.

    Args:
        store: where the files come from.
        folder: ours alone in what is named by a SHA-256; made where it is missing.
        budget_bytes: for all files together; exceeded only by what is in use at once.
        wait_s: the longest wait for somebody else's download of the same file.
    """

    def __init__(
        self, store: Store, folder: Path, budget_bytes: int, *, wait_s: float = 900.0
    ) -> None:
        self._store = store
        self._directory = CacheDirectory(folder, budget_bytes)
        self._wait_s = wait_s

    @contextmanager
    def lease(
        self, version: UsableVersion, check_cancelled: CheckCancelled = None
    ) -> Iterator[Path]:
        """The file, for as long as the block lasts: fetched if need be, and not evicted.

        One download per file, however many threads and processes ask; a hit costs no request.

        Args:
            version: which file.
            check_cancelled: called while waiting and downloading; what it raises ends both.

        Raises:
            LoraCorrupt: the object's bytes are not those of the version; nothing is left on disk.
            VersionNotFound: the bucket has no such object.
            CacheDiskFull: the disk is full, everything unused given back.
            CacheBusy: another download of the file did not end in `wait_s`.
            StoreError: the bucket failed.
        """
        descriptor = self._directory.open(version.sha256, version.size)
        if descriptor is None:
            descriptor = self._obtain(version, check_cancelled)
        try:
            yield self._directory.path(version.sha256)
        finally:
            os.close(descriptor)

    def free_space(self, wanted: int) -> int:
        """Give the disk back `wanted` bytes, or all that are not in use; returns the bytes."""
        return self._directory.evict(wanted)

    def usage(self) -> CacheUsage:
        """Files, bytes and budget, for health reports."""
        return self._directory.usage()

    def _obtain(self, version: UsableVersion, check_cancelled: CheckCancelled) -> int:
        try:
            with exclusive(
                self._directory.lock(version.sha256),
                timeout_s=self._wait_s,
                check_cancelled=check_cancelled,
            ):
                descriptor = self._directory.open(version.sha256, version.size)
                if descriptor is None:
                    descriptor = self._adopt(version, check_cancelled)
                return self._fetch(version, check_cancelled) if descriptor is None else descriptor
        except LockTimeout as error:
            raise CacheBusy(
                "The download of the character's LoRA takes too long; try again.",
                details={"character_id": version.character_id, "waited_s": self._wait_s},
            ) from error

    def _adopt(self, version: UsableVersion, check_cancelled: CheckCancelled) -> int | None:
        """Take a file that is there without a fitting mark, if its bytes are right."""
        path = self._directory.path(version.sha256)
        try:
            _verify(path, version, check_cancelled)
            return self._directory.publish(path, version.sha256)
        except FileNotFoundError:
            return None
        except LoraCorrupt:
            log.warning("cached lora was changed on disk", extra={"sha256": version.sha256})
            path.unlink(missing_ok=True)
            return None

    def _fetch(self, version: UsableVersion, check_cancelled: CheckCancelled) -> int:
        try:
            return self._download(version, check_cancelled)
        except (OSError, StoreError) as error:
            if not _disk_is_full(error):
                raise
        freed = self._directory.evict(version.size)
        log.warning("disk full, unused loras removed", extra={"freed_bytes": freed})
        try:
            return self._download(version, check_cancelled)
        except (OSError, StoreError) as error:
            if not _disk_is_full(error):
                raise
            raise CacheDiskFull(
                "The worker's disk has no room for the character's LoRA; give it a larger one.",
                details={"needed_bytes": version.size},
            ) from error

    def _download(self, version: UsableVersion, check_cancelled: CheckCancelled) -> int:
        started = time.monotonic()
        folder = self._directory.reserve(version.sha256, version.size, check_cancelled)
        try:
            part = folder / "weights.part"
            self._store.download(version.key, part, check_cancelled=check_cancelled)
            _verify(part, version, check_cancelled)
            descriptor = self._directory.publish(part, version.sha256)
        except ObjectMissing as error:
            raise VersionNotFound(
                version.character_id,
                version.version,
                f"The weights of version {version.version!r} of character "
                f"{version.character_id!r} are gone from the bucket; register them again.",
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        log.info(
            "lora downloaded",
            extra={
                "character_id": version.character_id,
                "bytes": version.size,
                "ms": round((time.monotonic() - started) * 1000),
            },
        )
        return descriptor


def _verify(path: Path, version: UsableVersion, check_cancelled: CheckCancelled) -> None:
    size = path.stat().st_size
    if size != version.size:
        raise _corrupt(version, f"it has {size} bytes instead of {version.size}")
    if sha256_of(path, check_cancelled=check_cancelled) != version.sha256:
        raise _corrupt(version, "its checksum is another")
    try:
        read_header(path)
    except LoraCorrupt as error:
        raise _corrupt(version, "it is not a safetensors file") from error


def _corrupt(version: UsableVersion, reason: str) -> RegistryError:
    return LoraCorrupt(
        f"The LoRA of character {version.character_id!r}, version {version.version!r}, is "
        f"damaged: {reason}; if it stays so, register or train it again.",
        details={"key": version.key, "sha256": version.sha256},
    )


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is what was behind an error, the store's wrapping looked through."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False
