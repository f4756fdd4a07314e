"""Make the worker's bucket: `python -m builder.make_bucket`, for an S3 server of one's own.

`docker compose` and the smoke test run it in the image before the worker. A hosted bucket is made
where it is hosted.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_DEADLINE_S: Final = 60.0
_PAUSE_S: Final = 0.5
_THERE: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


def make_bucket(environment: Mapping[str, str], deadline_s: float = _DEADLINE_S) -> None:
    """Make S3_BUCKET, waiting for a server that is still starting; one that exists is left alone.

    Raises:
        ClientError, BotoCoreError: what the server said last, at the deadline.
    """
    client = boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT_URL"],
        region_name=environment.get("S3_REGION") or "us-east-1",
        aws_access_key_id=environment["S3_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["S3_SECRET_ACCESS_KEY"],
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=10,
        ),
    )
    end = time.monotonic() + deadline_s
    try:
        while True:
            try:
                client.create_bucket(Bucket=environment["S3_BUCKET"])
            except (ClientError, BotoCoreError) as error:
                if _is_there(error):
                    return
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return
    finally:
        client.close()


def _is_there(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response["Error"].get("Code") in _THERE


if __name__ == "__main__":
    make_bucket(os.environ)
    sys.exit(0)
