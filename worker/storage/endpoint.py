"""Where a bucket is: endpoints as people paste them, made into what an S3 client needs. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from worker.errors import InvalidSettings

Provider = Literal["s3", "supabase"]
AddressingStyle = Literal["auto", "path", "virtual"]

_SUPABASE_PATH: Final = "/storage/v1/s3"
_SUPABASE_PROJECT = re.compile(r"^(?P<ref>[a-z0-9-]+)\.supabase\.co$")
_AWS_HOST = re.compile(r"^s3[.-](?:dualstack\.)?(?P<region>[a-z0-9-]+-\d+)\.amazonaws\.com(\.cn)?$")
_R2_DOMAIN: Final = ".r2.cloudflarestorage.com"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an S3 client is opened with; without `url` it is AWS itself."""

    url: str | None
    region: str
    addressing_style: AddressingStyle


def supabase_url(project_ref: str) -> str:
    """The S3 endpoint of a Supabase project (Supabase docs, "S3 Authentication")."""
    return f"https://{project_ref}.storage.supabase.co{_SUPABASE_PATH}"


def resolve_endpoint(
    provider: Provider,
    endpoint_url: str | None,
    *,
    bucket: str,
    region: str,
    addressing_style: AddressingStyle = "auto",
    supabase_project_ref: str | None = None,
) -> Endpoint:
    """Strip a bucket that the endpoint carries already, and settle region and addressing style.

    RunPod's `BUCKET_ENDPOINT_URL` names the bucket, as host or as path; a client would add it
    again.

    Raises:
        InvalidSettings: not a URL of http or https, or one with a password, query or fragment.
    """
    text = (endpoint_url or "").strip()
    if provider == "supabase":
        url = _supabase(text, supabase_project_ref, bucket)
        return Endpoint(url, region, "path")
    if not text:
        return Endpoint(None, region, addressing_style)
    parts = _split(text)
    host = _without_bucket_in_host(parts.hostname or "", bucket)
    in_host = host != parts.hostname
    url = f"{parts.scheme}://{_netloc(host, parts)}{_without_bucket_in_path(parts.path, bucket)}"
    if addressing_style == "auto":
        addressing_style = _addressing_style(host, in_host=in_host)
    return Endpoint(url, _region(host, region), addressing_style)


def _split(text: str) -> SplitResult:
    parts = urlsplit(text if "://" in text else f"https://{text}")
    try:
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise InvalidSettings("S3_ENDPOINT_URL must be an http or https URL.")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidSettings("S3_ENDPOINT_URL must have no credentials, query or fragment.")
    return parts


def _netloc(host: str, parts: SplitResult) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if parts.port is None else f"{name}:{parts.port}"


def _supabase(text: str, project_ref: str | None, bucket: str) -> str:
    if not text and not project_ref:
        raise InvalidSettings("SUPABASE_PROJECT_REF or S3_ENDPOINT_URL is needed.")
    if not text:
        return supabase_url(project_ref or "")
    parts = _split(text)
    path = _without_bucket_in_path(parts.path, bucket)
    project = _SUPABASE_PROJECT.match(parts.hostname or "")
    if project and path in {"", _SUPABASE_PATH}:
        return supabase_url(project["ref"])
    return f"{parts.scheme}://{_netloc(parts.hostname or '', parts)}{path or _SUPABASE_PATH}"


def _without_bucket_in_path(path: str, bucket: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    while segments and segments[-1] == bucket:
        segments.pop()
    return "".join(f"/{segment}" for segment in segments)


def _without_bucket_in_host(host: str, bucket: str) -> str:
    """Drop the bucket's label only where a service's own name is left.

    A bucket `minio` at `minio.example.com`, or `s3` at `s3.eu-west-1.amazonaws.com`, stands there
    for the server.
    """
    rest = host.removeprefix(f"{bucket.lower()}.")
    if rest == host:
        return host
    if rest.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return rest if rest.startswith(("s3.", "s3-")) else host
    return rest if rest == "localhost" or rest.count(".") >= 2 else host  # noqa: PLR2004 - labels


def _addressing_style(host: str, *, in_host: bool) -> AddressingStyle:
    if in_host:
        return "virtual"
    # boto3's own "auto" would put the bucket before any host name; few servers outside AWS have
    # the wildcard name for it, while all of them serve the path style.
    return "auto" if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "path"


def _region(host: str, region: str) -> str:
    if host.endswith(_R2_DOMAIN):
        return "auto"
    aws = _AWS_HOST.match(host)
    return aws["region"] if aws else region
