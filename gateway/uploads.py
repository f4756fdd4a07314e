"""Files on their way into the bucket: by URLs that allow one file each, or through the gateway."""

import secrets
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from gateway.inline import INPUTS
from gateway.problems import Invalid
from worker.storage import ObjectStore

EXPIRES_S: Final = 3600
_PICTURE: Final = 25_000_000
LIMITS: Final = {
    "image/png": (".png", _PICTURE),
    "image/jpeg": (".jpg", _PICTURE),
    "image/webp": (".webp", _PICTURE),
    "image/heic": (".heic", _PICTURE),
    "image/heif": (".heif", _PICTURE),
    "application/zip": (".zip", 1_000_000_000),
    "application/x-safetensors": (".safetensors", 2_000_000_000),
}
"""What may be uploaded: its suffix, and the largest size in bytes."""


class UploadFile(BaseModel):
    """One file to come."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    content_type: str
    bytes: Annotated[int, Field(ge=1)]
    name: Annotated[str, Field(max_length=255)] = ""


class UploadRequest(BaseModel):
    """Up to a hundred files of one upload."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    files: Annotated[list[UploadFile], Field(min_length=1, max_length=100)]


def new_upload_id() -> str:
    """A folder's name that nobody guesses."""
    return secrets.token_urlsafe(18).replace("-", "0").replace("_", "1")


def key_of(upload_id: str, number: int, content_type: str, size: int, field: str) -> str:
    """Where a file of an upload goes. Raises Invalid: another type, or too large."""
    known = LIMITS.get(content_type)
    if known is None:
        allowed = ", ".join(LIMITS)
        raise Invalid(f"{field}.content_type: must be one of {allowed}.", field=field)
    suffix, limit = known
    if size > limit:
        raise Invalid(f"{field}.bytes: must be a whole number from 1 to {limit}.", field=field)
    return f"{INPUTS}{upload_id}/{number:03d}{suffix}"


def presigned(request: UploadRequest, store: ObjectStore) -> dict[str, Any]:
    """URLs to put the files to: each takes exactly the bytes and the type that were announced."""
    upload_id = new_upload_id()
    files = []
    for number, file in enumerate(request.files):
        key = key_of(upload_id, number, file.content_type, file.bytes, f"files.{number}")
        put = store.presign_put(key, EXPIRES_S, content_type=file.content_type, size=file.bytes)
        files.append(
            {
                "name": file.name,
                "key": key,
                "method": "PUT",
                "url": put.url,
                "headers": {"Content-Type": file.content_type},
                "expires_at": put.expires_at,
            }
        )
    return {"upload_id": upload_id, "files": files}


def type_of(name: str, declared: str | None) -> str:
    """The content type of a form's file: what it says, else what its name says."""
    if declared in LIMITS:
        return str(declared)
    suffix = PurePosixPath(name.lower()).suffix.replace(".jpeg", ".jpg")
    return next((kind for kind, (known, _) in LIMITS.items() if known == suffix), str(declared))
