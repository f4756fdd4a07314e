"""What can go wrong while models are fetched, as nouns with facts; messages name the remedy."""

from pathlib import Path


class BuildError(Exception):
    """Base of what the builder raises; the message is for the person at the build."""


class ManifestInvalid(BuildError):
    """models.toml says something that cannot be used."""


class ModelUnverified(BuildError):
    """A model whose sha256 has fewer than two sources, asked for without the flag."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name}: its sha256 in models.toml is not confirmed by two sources; "
            "fetch it with --unverified if you trust it."
        )


class HashMismatch(BuildError):
    """A whole file of the right name whose content is another one."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where}: sha256 is {found}, models.toml says {expected}.")
        self.expected = expected
        self.found = found


class SizeMismatch(BuildError):
    """The source has a file of another size."""

    def __init__(self, where: str, expected: int, found: int) -> None:
        super().__init__(f"{where}: {found} bytes, models.toml says {expected}.")
        self.expected = expected
        self.found = found


class SourceMissing(BuildError):
    """404 or 410."""

    def __init__(self, where: str, status: int) -> None:
        super().__init__(f"{where}: not there (HTTP {status}); correct its url in models.toml.")
        self.status = status


class SourceRefused(BuildError):
    """401 or 403."""

    def __init__(self, where: str, status: int) -> None:
        super().__init__(
            f"{where}: refused (HTTP {status}); accept the model's licence on its page and give a "
            "token (--token-file, or the build secret hf_token)."
        )
        self.status = status


class DownloadFailed(BuildError):
    """Given up: no progress in several tries, too slow for the deadline, or a wrong answer."""


class DiskTooSmall(BuildError):
    """The disk has less room than the file needs."""

    def __init__(self, folder: Path, needed: int, free: int) -> None:
        super().__init__(f"{folder}: {free} bytes free, {needed} needed.")
