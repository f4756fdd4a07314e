"""What our downloads are measured against: boto3's own, tuned, on the same server."""

from collections.abc import Callable
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from worker.storage import StorageOptions
from worker.storage.client import open_client


def tuned_boto3(options: StorageOptions) -> Callable[[str, Path], None]:
    """boto3's download with 16 threads of 16 MiB and 1 MiB reads; it hashes nothing."""
    client = open_client(options)
    config = TransferConfig(
        max_concurrency=16,
        multipart_chunksize=16 << 20,
        io_chunksize=1 << 20,
        preferred_transfer_client="classic",
    )
    return lambda key, path: client.download_file(options.bucket, key, str(path), Config=config)
