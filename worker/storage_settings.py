"""Settings of the bucket, shared by worker and gateway, and the reading of any settings model.

Only `worker/settings.py` and `gateway/settings.py` touch the environment; here it is a mapping.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from worker.errors import InvalidSettings
from worker.storage import StorageOptions

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "S3_ENDPOINT_URL": (
        *("BUCKET_ENDPOINT_URL", "STORAGE_ENDPOINT_URL", "STORAGE_ENDPOINT"),
        *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    ),
    "S3_BUCKET": ("BUCKET_NAME", "STORAGE_BUCKET", "STORAGE_BUCKET_NAME", "AWS_BUCKET"),
    "S3_REGION": ("STORAGE_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "S3_ACCESS_KEY_ID": (
        *("BUCKET_ACCESS_KEY_ID", "STORAGE_ACCESS_KEY_ID", "STORAGE_ACCESS_KEY"),
        "AWS_ACCESS_KEY_ID",
    ),
    "S3_SECRET_ACCESS_KEY": (
        *("BUCKET_SECRET_ACCESS_KEY", "STORAGE_SECRET_ACCESS_KEY", "STORAGE_SECRET_KEY"),
        *("STORAGE_SECRET", "AWS_SECRET_ACCESS_KEY"),
    ),
    "LORA_CACHE_DIR": ("LORA_OUTPUT_DIR",),
}
"""Names that people have set elsewhere, in the order in which they are asked; ours wins."""

_M = TypeVar("_M", bound=BaseModel)


class StorageSettings(BaseModel):
    """Which bucket; a field `s3_bucket` is the environment variable `S3_BUCKET`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Storage
    storage_provider: Literal["s3", "supabase"] = Field("s3", description="Kind of object store.")
    s3_endpoint_url: str | None = Field(
        None, description="Endpoint of the store; empty for AWS. A bucket in it is stripped."
    )
    s3_bucket: str = Field(description="Bucket of characters and outputs.", min_length=1)
    s3_region: str = Field(
        "us-east-1", description="Region; `auto` for R2, the project's for Supabase."
    )
    s3_access_key_id: str = Field(description="Access key id.", min_length=1)
    s3_secret_access_key: SecretStr = Field(description="Secret access key.", min_length=1)
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="`path` for MinIO and the like; `auto` decides by the endpoint."
    )
    s3_prefix: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?/?$",
        description="Put before every key, to share a bucket.",
    )
    supabase_project_ref: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]+$",
        description="Gives the endpoint when the provider is supabase.",
    )
    url_expires_s: int = Field(
        86_400, ge=60, description="Life of presigned URLs in seconds; at most 604800 (clamped)."
    )
    public_base_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Answer plain URLs below this instead of presigned ones.",
    )

    @model_validator(mode="after")
    def _supabase_needs_an_endpoint(self) -> Self:
        supabase = self.storage_provider == "supabase"
        if supabase and not (self.supabase_project_ref or self.s3_endpoint_url):
            raise ValueError("SUPABASE_PROJECT_REF (or S3_ENDPOINT_URL) is needed for supabase")
        return self


def storage_options(settings: StorageSettings) -> StorageOptions:
    """The bucket."""
    return StorageOptions(
        bucket=settings.s3_bucket,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        provider=settings.storage_provider,
        endpoint_url=settings.s3_endpoint_url,
        supabase_project_ref=settings.supabase_project_ref,
        region=settings.s3_region,
        addressing_style=settings.s3_addressing_style,
        prefix=settings.s3_prefix,
        public_base_url=settings.public_base_url,
    )


def read_settings(model: type[_M], given: Mapping[str, str]) -> _M:
    """Fill a settings model from an environment; empty variables count as absent.

    Raises:
        InvalidSettings: one line per setting that is missing or wrong, values never shown.
    """
    values: dict[str, Any] = {
        name: text for name in model.model_fields if (text := _lookup(given, name.upper()).strip())
    }
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidSettings("\n".join(_complaints(model, error))) from None


def _lookup(given: Mapping[str, str], name: str) -> str:
    names = (name, *ALIASES.get(name, ()))
    return next((text for each in names if (text := given.get(each))), "")


def _complaints(model: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_input=False, include_context=True):
        name = str(fault["loc"][0]).upper() if fault["loc"] else "settings"
        if fault["type"] == "missing":
            lines.append(f"{name} is missing: {model.model_fields[name.lower()].description}")
        else:
            lines.append(f"{name}: {fault['msg'].removeprefix('Value error, ')}")
    return lines
