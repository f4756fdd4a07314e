import numpy as np
import pytest
from PIL import Image, ImageFilter

from worker.training.photos import (
    PhotoFacts,
    enough_pixels,
    fingerprint,
    judge,
    rejected,
    sharpness,
    size_problem,
)


def picture(seed: int = 0, size: tuple[int, int] = (900, 700)) -> Image.Image:
    """Large shapes and fine grain, as a photo in focus has both."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (7, 9, 3), dtype=np.uint8)).resize(size)
    grain = random.normal(0, 14, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def facts(
    *, sha256: str = "a", width: int = 1024, height: int = 1024, hash_: int = 0, sharp: float = 500
) -> PhotoFacts:
    return PhotoFacts(sha256, width, height, hash_, sharp)


def test_a_fingerprint_survives_size_and_compression_but_not_another_picture() -> None:
    original = picture(1)
    small = original.resize((450, 350))
    same = (fingerprint(original) ^ fingerprint(small)).bit_count()
    other = (fingerprint(original) ^ fingerprint(picture(2))).bit_count()
    assert same <= 4
    assert other > 10


def test_blur_is_seen_whatever_the_size() -> None:
    assert sharpness(picture()) > 40
    assert sharpness(picture(size=(1800, 1400))) > 40
    assert sharpness(picture().filter(ImageFilter.GaussianBlur(6))) < 40
    assert sharpness(Image.new("RGB", (1, 1))) == 0


def test_verdicts() -> None:
    verdicts = judge(
        [
            (0, "a", facts()),
            (1, "b", facts(sha256="a")),
            (2, "c", facts(sha256="c", hash_=0b1111)),
            (3, "d", facts(sha256="d", hash_=2**32 - 1, width=700)),
            (4, "e", facts(sha256="e", hash_=2**64 - 1, width=3000, sharp=3)),
            (5, "f", facts(sha256="f", hash_=0xF0F0_F0F0, width=500)),
        ],
        1024,
    )
    codes = [[reason.code for reason in verdict.reasons] for verdict in verdicts]
    assert codes == [
        [],
        ["duplicate"],
        ["near_duplicate"],
        ["small"],
        ["extreme_aspect", "blurred"],
        ["too_small"],
    ]
    kinds = [verdict.kind for verdict in verdicts]
    assert kinds == ["kept", "rejected", "warned", "warned", "warned", "rejected"]


def test_a_duplicate_of_a_rejected_photo_is_not_a_duplicate() -> None:
    small = facts(width=100)
    verdicts = judge([(0, "a", small), (1, "b", small)], 1024)
    assert [reason.code for reason in verdicts[1].reasons] == ["too_small"]


def test_smaller_trainings_take_smaller_photos() -> None:
    assert size_problem(300, 400, 256) is None
    assert size_problem(300, 400, 1024) is not None
    (verdict,) = judge([(0, "a", facts(width=300, height=300))], 256)
    assert verdict.kind == "kept"


def test_json_says_what_a_user_needs() -> None:
    (kept,) = judge([(4, "a.png", facts())], 1024)
    assert kept.as_json() == {
        "index": 4,
        "name": "a.png",
        "verdict": "kept",
        "reasons": [],
        "width": 1024,
        "height": 1024,
        "sha256": "a",
    }
    bad = rejected(2, "b.png", "unreadable", "It is not a picture.").as_json()
    assert bad["verdict"] == "rejected"
    assert bad["reasons"] == [{"code": "unreadable", "message": "It is not a picture."}]


@pytest.mark.parametrize("resolution", [256, 512, 1024, 1536])
def test_photos_keep_more_pixels_than_a_trainer_takes(resolution: int) -> None:
    assert resolution**2 < enough_pixels(resolution) < 1.4 * resolution**2
