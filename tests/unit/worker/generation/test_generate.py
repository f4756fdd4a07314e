import pytest

from worker.contract import ImageJob, parse_job
from worker.generation.delivery import described_input
from worker.generation.generate import MAX_DRAWN_SEED, drawn_seed
from worker.generation.jobs import fitted


def image_job(**fields: object) -> ImageJob:
    job = parse_job({"task": "image", "prompt": "x"} | fields)
    assert isinstance(job, ImageJob)
    return job


def test_a_drawn_seed_belongs_to_the_job_and_survives_javascript() -> None:
    seeds = {drawn_seed(f"job-{number}") for number in range(1000)}
    assert len(seeds) == 1000
    assert drawn_seed("job-1") == drawn_seed("job-1")
    assert max(seeds) <= MAX_DRAWN_SEED


def test_the_described_input_is_the_job_again() -> None:
    raw = {"task": "image", "prompt": "x", "steps": 3, "init_image": {"key": "inputs/a.png"}}
    assert described_input(parse_job(raw)) == raw  # type: ignore[arg-type] # an image job


def test_base64_is_described_by_its_digest() -> None:
    job = image_job(init_image={"base64": "aGk="})
    assert set(described_input(job)["init_image"]) == {"base64_sha256"}


def test_a_sources_url_is_described_without_what_may_be_secret() -> None:
    url = "https://user:pw@example.com/p.png?X-Amz-Signature=abc&sig=def#part"
    described = described_input(image_job(init_image={"url": url}))
    assert described["init_image"] == {"url": "https://example.com/p.png"}


@pytest.mark.parametrize(
    ("asked", "init", "expected"),
    [
        ((None, None), (1000, 1000), (1024, 1024)),
        ((None, None), (4000, 2000), (1472, 704)),
        ((None, None), (100, 4000), (256, 2048)),
        ((512, None), (2000, 1000), (512, 256)),
        ((None, 512), (2000, 1000), (1024, 512)),
        ((512, 640), (2000, 1000), (512, 640)),
    ],
)
def test_open_sides_follow_the_init_image(
    asked: tuple[int | None, int | None], init: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted(asked, init) == expected


def test_the_described_inputs_keep_no_bytes_and_no_secret() -> None:
    inputs = {"mask": "data:image/png;base64,aGk=", "last": "https://example.com/p.png?sig=1"}
    described = described_input(image_job(inputs=inputs))["inputs"]
    assert set(described["mask"]) == {"base64_sha256"}
    assert described["last"] == {"url": "https://example.com/p.png"}
