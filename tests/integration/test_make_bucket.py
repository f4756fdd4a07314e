import pytest
from botocore.exceptions import EndpointConnectionError

from builder.make_bucket import make_bucket
from local.s3 import S3Server
from worker.storage import ObjectStore


def environment(s3: S3Server, bucket: str) -> dict[str, str]:
    return {
        "S3_ENDPOINT_URL": s3.endpoint_url,
        "S3_BUCKET": bucket,
        "S3_ACCESS_KEY_ID": s3.access_key_id,
        "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
    }


def test_bucket_is_made_once_and_left_alone_after(s3: S3Server, store: ObjectStore) -> None:
    make_bucket(environment(s3, "fresh-bucket"))
    make_bucket(environment(s3, "fresh-bucket"))
    store.put("kept", b"1")
    make_bucket(environment(s3, s3.bucket))
    assert store.get("kept").body == b"1"


def test_server_that_never_comes_up_is_an_error(s3: S3Server) -> None:
    nowhere = environment(s3, "bucket") | {"S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    with pytest.raises(EndpointConnectionError):
        make_bucket(nowhere, deadline_s=0.2)
