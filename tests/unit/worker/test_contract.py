import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract import CharactersJob, ImageJob, TrainJob, VideoJob, WorkflowJob, parse_job
from worker.errors import InvalidInput

IMAGE = {"task": "image", "prompt": "a portrait"}
ROOT = Path(__file__).resolve().parents[3]


def refused(job: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_job(job)
    return caught.value


def test_the_shortest_image_job_has_the_documented_defaults() -> None:
    job = parse_job(IMAGE)
    assert isinstance(job, ImageJob)
    assert (job.workflow, job.count, job.format, job.used_characters) == (None, 1, None, ())


def test_each_task_has_its_own_fields() -> None:
    assert isinstance(parse_job({"task": "video", "prompt": "a wave"}), VideoJob)
    assert isinstance(parse_job({"task": "workflow", "workflow": "upscale"}), WorkflowJob)
    photos = [{"base64": "aGk="} for _ in range(5)]
    assert isinstance(
        parse_job({"task": "train", "character_id": "mira", "images": photos}), TrainJob
    )
    assert isinstance(parse_job({"task": "characters", "action": "list"}), CharactersJob)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"task": "sing"}, "task", "must be one of"),
        ({"colour": 1}, "colour", "is not a field"),
        ({"width": 100}, "width", "from 256 to 2048 and a multiple of 8"),
        ({"width": 300.5}, "width", "a whole number"),
        ({"width": 260 + 1}, "width", "multiple of 8"),
        ({"steps": 0}, "steps", "from 1 to 100"),
        ({"cfg": float("nan")}, "cfg", "from 0 to 30"),
        ({"cfg": "7"}, "cfg", "a number"),
        ({"seed": -2}, "seed", "from -1 to 18446744073709551615"),
        ({"seed": 10**400}, "seed", "from -1 to"),
        ({"count": 9}, "count", "from 1 to 8"),
        ({"format": "gif"}, "format", "png, jpeg, webp"),
        ({"prompt": "a\x00b"}, "prompt", "control characters"),
        ({"prompt": ""}, "prompt", "1 to 8192"),
        ({"prompt": "x" * 8193}, "prompt", "1 to 8192"),
        ({"character_id": "../etc"}, "character_id", "matching"),
        ({"character_id": "mira\n"}, "character_id", "matching"),
        ({"strength": 1.0}, "input", "need a character_id"),
        ({"denoise": 0.5}, "input", "needs an init_image"),
        ({"init_image": {}}, "init_image", "exactly one of url, base64, key"),
        ({"init_image": {"url": "http://a", "key": "b"}}, "init_image", "exactly one"),
        ({"init_image": {"key": "inputs/../secret"}}, "init_image.key", "without '..'"),
        ({"init_image": {"key": "/etc/passwd"}}, "init_image.key", "leading '/'"),
        ({"init_image": ""}, "init_image.key", "1 to 1024"),
        ({"init_image": 3}, "init_image", "an address, a data: URI or a key"),
        ({"inputs": {"a b": "inputs/x"}}, "inputs", "letters, digits"),
        ({"inputs": {"mask": {"url": "http://a", "key": "b"}}}, "inputs.mask", "exactly one"),
        ({"inputs": {"mask": "../x"}}, "inputs.mask.key", "without '..'"),
        ({"inputs": {f"m{n}": "x" for n in range(17)}}, "inputs", "16"),
        ({"params": {"clip_skip": [1]}}, "params.clip_skip", "true or false"),
        ({"characters": [{"character_id": str(n)} for n in range(5)]}, "characters", "0 to 4"),
        ({"timeout_s": 0}, "timeout_s", "from 1 to 86400"),
    ],
)
def test_bad_values_name_the_field_and_the_range(
    change: dict[str, object], field: str, words: str
) -> None:
    error = refused(IMAGE | change)
    assert error.field == field
    assert words in str(error)
    assert str(error).endswith(".")


@pytest.mark.parametrize("raw", [None, [], "image", 3, {}, {"task": None}, {"task": ["image"]}])
def test_what_is_no_job_is_refused_with_a_sentence(raw: object) -> None:
    assert refused(raw).code == "invalid_input"


def test_a_json_bomb_is_refused_before_it_is_walked_into() -> None:
    bomb: object = 1
    for _ in range(500):
        bomb = [bomb]
    assert "nested deeper" in str(refused(IMAGE | {"params": {"x": bomb}}))


def test_a_character_can_be_named_in_one_way_only() -> None:
    both = IMAGE | {"character_id": "a", "characters": [{"character_id": "b"}]}
    assert "either" in str(refused(both))
    twice = IMAGE | {"characters": [{"character_id": "a"}, {"character_id": "a"}]}
    assert "twice" in str(refused(twice))


def test_the_cast_is_the_same_however_it_was_named() -> None:
    short = parse_job(IMAGE | {"character_id": "mira", "strength": 0.5})
    long = parse_job(IMAGE | {"characters": [{"character_id": "mira", "strength": 0.5}]})
    assert isinstance(short, ImageJob)
    assert isinstance(long, ImageJob)
    assert short.used_characters == long.used_characters


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("https://example.com/a.png", "url"),
        ("HTTP://example.com/a.png", "url"),
        ("ftp://example.com/a.png", "url"),
        ("inputs/a b.png", "key"),
        ("data:image/png;base64,aGk=", "base64"),
        ("aGk=" * 500, "base64"),
    ],
)
def test_a_source_may_be_a_plain_text(text: str, field: str) -> None:
    job = parse_job(IMAGE | {"init_image": text})
    assert isinstance(job, ImageJob)
    assert job.sources()["init_image"].model_dump(exclude_none=True) == {field: text}


def test_base64_in_lines_and_a_data_uri_as_an_address_are_taken() -> None:
    wrapped = parse_job(IMAGE | {"inputs": {"mask": {"base64": "aGkg\r\naGk=\n"}}})
    uri = parse_job(IMAGE | {"inputs": {"mask": {"url": "data:,hi"}}})
    assert isinstance(wrapped, ImageJob)
    assert isinstance(uri, ImageJob)
    assert wrapped.inputs["mask"].base64 == "aGkgaGk="
    assert uri.inputs["mask"].base64 == "data:,hi"


def test_photos_may_be_plain_texts_too() -> None:
    photos = ["inputs/a.jpg"] * 5
    job = parse_job({"task": "train", "character_id": "mira", "images": photos})
    assert isinstance(job, TrainJob)
    assert [photo.key for photo in job.images or []] == photos


def test_whole_numbers_may_be_written_with_a_point_and_a_seed_be_minus_one() -> None:
    job = parse_job(IMAGE | {"steps": 20.0, "seed": -1.0, "params": {"amount": 3.0}})
    assert isinstance(job, ImageJob)
    assert (job.steps, job.seed, job.params["amount"]) == (20, None, 3)
    assert type(job.params["amount"]) is int


def test_an_input_has_one_source() -> None:
    both = IMAGE | {"init_image": "inputs/a.png", "inputs": {"init_image": "inputs/b.png"}}
    assert "either init_image or inputs.init_image" in str(refused(both))


def test_characters_say_what_their_action_needs() -> None:
    assert "character_id" in str(refused({"task": "characters", "action": "get"}))
    register = {"task": "characters", "action": "register", "character_id": "mira"}
    assert "source" in str(refused(register))
    assert "version" in str(refused(register | {"action": "activate"}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(sorted(ImageJob.model_fields)), JSON))
def test_whatever_comes_is_parsed_or_refused_in_one_printable_sentence(
    fields: dict[str, object],
) -> None:
    refused_as: InvalidInput | None = None
    try:
        parse_job(fields | {"task": "image"})
    except InvalidInput as error:
        refused_as = error
    assert refused_as is None or (refused_as.field and len(str(refused_as).splitlines()) == 1)


def test_the_schema_in_docs_is_the_one_of_this_code() -> None:
    from worker.schema import contract_schema  # noqa: PLC0415 - only this test needs it

    stored = json.loads((ROOT / "docs" / "contract.schema.json").read_text())
    assert stored == contract_schema(), "run: make schema"


def test_test_input_is_a_valid_job() -> None:
    parse_job(json.loads((ROOT / "test_input.json").read_text())["input"])
