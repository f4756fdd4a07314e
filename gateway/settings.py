"""The gateway's environment, read once; the bucket's settings are the worker's own."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr

from worker.storage_settings import StorageSettings, read_settings


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in value.replace(",", " ").split() if part)
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]


class GatewaySettings(StorageSettings):
    """All settings; a field `port` is the environment variable `PORT`."""

    # RunPod
    runpod_api_key: SecretStr = Field(description="RunPod API key that may run jobs.", min_length=1)
    runpod_endpoint_id: str = Field(
        description="The endpoint that makes pictures and clips.", pattern=r"^[A-Za-z0-9_-]+$"
    )
    runpod_train_endpoint_id: str | None = Field(
        None,
        description="The endpoint that trains, if another one does.",
        pattern=r"^[A-Za-z0-9_-]+$",
    )
    runpod_base_url: str = Field(
        "https://api.runpod.ai/v2", description="RunPod's endpoint API.", pattern=r"^https?://"
    )

    # The gateway
    gateway_api_keys: Secrets = Field(
        (), description="Keys that callers may use; without one only loopback is served."
    )
    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 in a container.")
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen at; RunPod sets it.")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where RunPod reaches this gateway, to be told of a job's end.",
    )
    cors_origins: Words = Field((), description="Other sites whose pages may call the API.")
    rate_limit_per_minute: int = Field(
        1200, ge=1, description="Requests a minute that one key may make."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Signs webhooks (`whsec_…` or any text); needed to send them."
    )
    webhook_private_hosts: Words = Field(
        (), description="Hosts of webhooks that may have a private address."
    )
    resubmit_after_s: float = Field(
        30,
        ge=1,
        le=3_600,
        description="After so long a submission that nobody finished is sent again, in seconds.",
    )
    upload_max_bytes: int = Field(
        200_000_000, ge=1, description="Largest body of an upload through the gateway, in bytes."
    )
    workflows_dir: Path = Field(
        Path(__file__).resolve().parent.parent / "workflows",
        description="Folder of workflow folders that the endpoint has.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: text on a terminal, JSON lines elsewhere."
    )

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys in clear."""
        return tuple(key.get_secret_value() for key in self.gateway_api_keys)

    def endpoint_of(self, task: str) -> str:
        """The endpoint that serves a task."""
        return (self.runpod_train_endpoint_id if task == "train" else None) or (
            self.runpod_endpoint_id
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings. Raises InvalidSettings, one line per setting at fault."""
        return read_settings(cls, os.environ if environment is None else environment)
