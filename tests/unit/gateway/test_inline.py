import base64
from typing import Any

import pytest

from gateway.inline import lifted
from worker.errors import InvalidInput

BODY = bytes(range(256)) * 8
TEXT = base64.b64encode(BODY).decode()


class Shelf:
    """Takes objects and keeps them."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, body: bytes, _content_type: str) -> None:
        self.objects[key] = body


@pytest.mark.parametrize(
    "source",
    [
        {"base64": TEXT},
        {"base64": base64.encodebytes(BODY).decode()},
        {"url": f"data:image/png;base64,{TEXT}"},
        f"data:;base64,{TEXT}",
    ],
    ids=["base64", "in lines", "a data URI as a url", "a text"],
)
@pytest.mark.parametrize("place", ["init_image", "inputs", "images"])
def test_bytes_go_into_the_bucket_wherever_they_stand(source: Any, place: str) -> None:
    shelf = Shelf()
    value = {"init_image": source, "inputs": {"mask": source}, "images": [source]}[place]
    small = lifted({"task": "image", place: value}, "job-1", shelf)  # type: ignore[arg-type]
    assert shelf.objects == {"inputs/job-1/0": BODY}
    key = {"key": "inputs/job-1/0"}
    assert small[place] in (key, {"mask": key}, [key])


def test_texts_that_look_like_one_stay() -> None:
    prompt = "data:,a" + "x" * 2000
    job = {"task": "image", "prompt": prompt, "params": {"style": prompt}}
    assert lifted(job, "job-1", Shelf()) == job  # type: ignore[arg-type]


def test_no_base64_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        lifted({"inputs": {"mask": {"base64": "?" * 2000}}}, "job-1", Shelf())  # type: ignore[arg-type]
    assert caught.value.field == "inputs.mask.base64"
