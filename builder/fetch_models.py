"""Fetch the models of an image: `python -m builder.fetch_models --target worker-sdxl --into DIR`.

Runs in a stage of the image build, or by hand to fill a network volume. What the models folder, a
network volume or a Hugging Face cache already has is checked and linked instead of fetched.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from builder.download import Wanted, download
from builder.errors import BuildError, ModelUnverified
from builder.library import Shelves, check, link
from builder.manifest import MANIFEST, Model, load, select
from builder.transfer import Patience, Transfer


@dataclass(frozen=True, slots=True)
class Options:
    """How to fetch; `token` goes to Hugging Face only."""

    shelves: Shelves = field(default_factory=Shelves)
    token: str | None = None
    unverified: bool = False
    connections: int = 8
    patience: Patience = field(default_factory=Patience)


def fetch(model: Model, folder: Path, options: Options) -> str:
    """See to it that a model lies below `folder`, its content checked; returns what was done.

    Raises:
        HashMismatch: a file of its name and size, there or fetched, is another one.
        BuildError: as `download` says.
    """
    if not (model.verified or options.unverified):
        raise ModelUnverified(model.name)
    place = folder / model.relative
    if place.is_file():
        check(place, model)
        return "there"
    if found := options.shelves.find(model):
        check(found, model)
        link(found, place)
        return f"linked to {found}"
    started = time.monotonic()
    with open_transfer(model, options) as transfer:
        download(transfer, Wanted(model.sha256, model.bytes), place)
    took = time.monotonic() - started
    return f"fetched, {model.bytes / 1e6:.1f} MB in {took:.1f} s"


def open_transfer(model: Model, options: Options) -> Transfer:
    """Reading of a model's url; s3:// becomes a presigned address of our bucket's endpoint."""
    url = model.url
    if urlsplit(url).scheme == "s3":
        url = presigned(url, os.environ)
    return Transfer(
        url,
        where=model.url,
        token=options.token if model.hub else None,
        connections=options.connections,
        patience=options.patience,
    )


def presigned(url: str, environment: Mapping[str, str]) -> str:
    """Sign `s3://bucket/key` with the worker's own S3_* variables, for one hour."""
    import boto3  # noqa: PLC0415 - 0.3 s that only s3:// urls need
    from botocore.config import Config  # noqa: PLC0415

    parts = urlsplit(url)
    client = boto3.client(
        "s3",
        endpoint_url=environment.get("S3_ENDPOINT_URL") or None,
        region_name=environment.get("S3_REGION") or "us-east-1",
        aws_access_key_id=environment.get("S3_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("S3_SECRET_ACCESS_KEY"),
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    try:
        signed: str = client.generate_presigned_url(
            "get_object",
            Params={"Bucket": parts.netloc, "Key": parts.path.lstrip("/")},
            ExpiresIn=3600,
        )
    finally:
        client.close()
    return signed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: one line a model, exit status 1 when one could not be had."""
    given = _parser().parse_args(arguments)
    options = Options(
        shelves=Shelves(tuple(given.volume), tuple(given.hub_cache)),
        token=_token(given.token_file),
        unverified=given.unverified,
        connections=given.connections,
    )
    try:
        for model in select(load(given.manifest), target=given.target, names=given.name):
            print(f"{model.relative}: {fetch(model, given.into, options)}", flush=True)
    except BuildError as error:
        print(f"fetch_models: {error}", file=sys.stderr)
        return 1
    return 0


def _token(file: Path | None) -> str | None:
    if file is None or not file.is_file():
        return None
    return file.read_text("utf-8").strip() or None


def _parser() -> argparse.ArgumentParser:
    shelves = Shelves()
    parser = argparse.ArgumentParser(prog="python -m builder.fetch_models", description=__doc__)
    parser.add_argument("--target", help="image whose models to fetch, as in docker-bake.hcl")
    parser.add_argument("--name", action="append", default=[], help="a model, by name or path")
    parser.add_argument("--into", type=Path, required=True, help="the models folder")
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--token-file", type=Path, help="Hugging Face token, for gated models")
    parser.add_argument("--unverified", action="store_true", help="accept verified = false")
    parser.add_argument("--connections", type=int, default=8, help="ranges read at once")
    parser.add_argument("--volume", type=Path, action="append", default=list(shelves.folders))
    parser.add_argument("--hub-cache", type=Path, action="append", default=list(shelves.hub_caches))
    return parser


if __name__ == "__main__":
    sys.exit(main())
