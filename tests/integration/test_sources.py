from dataclasses import replace
from pathlib import Path

import pytest

from local.s3 import S3Server
from lora_registry.store import StoreRefused
from worker.contract_fields import Source
from worker.errors import SourceForbidden, SourceUnreachable
from worker.sources import SourceOptions, SourceReader
from worker.storage import ObjectStore

pytestmark = pytest.mark.process


@pytest.fixture
def reader(store: ObjectStore) -> SourceReader:
    return SourceReader(store, SourceOptions(max_bytes=100))


def test_a_key_is_read_and_saved(store: ObjectStore, reader: SourceReader, tmp_path: Path) -> None:
    store.put("inputs/me.png", b"picture", "image/png")
    source = Source(key="inputs/me.png")

    assert reader.read(source, field="init_image") == b"picture"
    assert reader.save(source, tmp_path / "me", field="init_image", max_bytes=100) == 7
    assert (tmp_path / "me").read_bytes() == b"picture"


@pytest.mark.parametrize("key", ["secrets/key", "inputsx/a", "base/outputs"])
def test_a_key_outside_the_prefixes_is_forbidden(
    store: ObjectStore, reader: SourceReader, key: str
) -> None:
    store.put(key, b"secret")
    with pytest.raises(SourceForbidden, match="inputs/") as caught:
        reader.read(Source(key=key), field="image")
    assert caught.value.field == "image.key"


def test_an_absent_key_is_named(reader: SourceReader) -> None:
    with pytest.raises(SourceUnreachable, match=r"inputs/none\.png") as caught:
        reader.read(Source(key="inputs/none.png"), field="image")
    assert caught.value.field == "image.key"


def test_too_large_an_object_is_not_fetched(
    store: ObjectStore, reader: SourceReader, tmp_path: Path
) -> None:
    store.put("inputs/large", b"x" * 101)
    source = Source(key="inputs/large")
    with pytest.raises(SourceUnreachable, match="larger than 100 bytes"):
        reader.read(source, field="image")
    with pytest.raises(SourceUnreachable, match="larger than 99 bytes"):
        reader.save(source, tmp_path / "large", field="archive", max_bytes=99)
    assert list(tmp_path.iterdir()) == []
    assert len(reader.read(source, field="image", max_bytes=101)) == 101


def test_a_bucket_that_is_gone_is_no_missing_source(s3: S3Server) -> None:
    with ObjectStore(replace(s3.options(), bucket="absent")) as store:
        reader = SourceReader(store, SourceOptions())
        with pytest.raises(StoreRefused):
            reader.read(Source(key="inputs/a"), field="image")
