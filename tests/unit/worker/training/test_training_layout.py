import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.training.layout import (
    caption_files,
    caption_text,
    is_clutter,
    kohya_folder,
    relative_repeats,
)


def test_captions_are_one_line_and_bounded() -> None:
    assert caption_text(b"a\tb\r\n\r\nc\x1b[0m") == ("a b c [0m", None)
    text, problem = caption_text(b"x" * 9000)
    assert len(text) == 2000
    assert "2,000" in (problem or "")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
@pytest.mark.parametrize("text", ["käse on a beach", "caf\u00e9 \u2013 at \u20ac 3"])
def test_captions_are_read_in_every_encoding_that_editors_write(encoding: str, text: str) -> None:
    assert caption_text(text.encode(encoding)) == (text, None)


def test_a_damaged_byte_does_not_cost_the_rest() -> None:
    text, problem = caption_text(b"caf\xc3\xa9 \xff")
    assert text == "café \ufffd"
    assert "could not be read" in (problem or "")


@given(st.binary(max_size=300))
def test_whatever_a_text_file_holds_is_one_printable_line(raw: bytes) -> None:
    text, _ = caption_text(raw)
    assert "\n" not in text
    assert len(text) <= 2000


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "a/.thumbnails/1.jpg",
        "__MACOSX/a.jpg",
        "set/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "set/Thumbs.db",
        "$RECYCLE.BIN/a.jpg",
        "System Volume Information/x",
        "#recycle/a.jpg",
        ".Trashes/a.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "",
    ],
)
def test_what_systems_leave_behind_is_clutter(name: str) -> None:
    assert is_clutter(name)


def test_a_caption_of_the_same_case_wins() -> None:
    found = caption_files(["A.jpg", "a.jpg"], ["A.txt", "a.txt"])
    assert found == {"A.jpg": "A.txt", "a.jpg": "a.txt"}
    assert caption_files(["IMG_0.JPG"], ["img_0.txt"]) == {"IMG_0.JPG": "img_0.txt"}


@pytest.mark.parametrize(
    ("photo", "found"),
    [
        ("10_ohwx woman/a.jpg", (10, "ohwx woman")),
        ("img/5_zkv_man/deep/a.jpg", (5, "zkv man")),
        ("2024_beach/a.jpg", None),
        ("0_none/a.jpg", None),
        ("10_/a.jpg", None),
        ("10_a.jpg", None),
    ],
)
def test_kohyas_folders(photo: str, found: tuple[int, str] | None) -> None:
    assert kohya_folder(photo) == found


@given(st.lists(st.integers(1, 999), min_size=1, max_size=20))
def test_repeats_keep_their_ratio(repeats: list[int]) -> None:
    found = relative_repeats(repeats)
    assert all(a * repeats[0] == b * found[0] for a, b in zip(found, repeats, strict=True))
