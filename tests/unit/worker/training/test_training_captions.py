import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.training.captions import (
    ORDINARY_WORDS,
    TemplateCaptioner,
    derived_trigger,
    length_warning,
    ordinary_words,
    trigger_warning,
    with_trigger,
    words_of_folder,
)


def test_the_template() -> None:
    captioner = TemplateCaptioner("mrzkqv", "woman")
    assert captioner.caption(Image.new("RGB", (8, 8))) == "mrzkqv woman"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("on a beach", "mrzkqv person, on a beach"),
        ("photo of MRZKQV on a beach", "photo of MRZKQV on a beach"),
        ("mrzkqvs are everywhere", "mrzkqv person, mrzkqvs are everywhere"),
        ("(mrzkqv:1.2), smiling", "(mrzkqv:1.2), smiling"),
        ("  ", "mrzkqv person"),
    ],
)
def test_the_trigger_is_put_in_where_it_is_missing(caption: str, expected: str) -> None:
    assert with_trigger(caption, "mrzkqv", "person") == expected


@given(caption=st.text(max_size=60))
def test_putting_it_in_twice_is_putting_it_in_once(caption: str) -> None:
    once = with_trigger(caption, "mrzkqv", "person")
    assert with_trigger(once, "mrzkqv", "person") == once
    assert "mrzkqv" in once.lower()


def test_a_derived_trigger_is_the_characters_own() -> None:
    assert derived_trigger("mira") == derived_trigger("mira")
    assert len({derived_trigger(f"c{number}") for number in range(500)}) == 500
    assert trigger_warning(derived_trigger("mira")) is None
    assert derived_trigger("mira").isalpha()


@pytest.mark.parametrize("trigger", ["woman", "Photo", "my girl", "the_person"])
def test_ordinary_words_are_warned_about(trigger: str) -> None:
    warning = trigger_warning(trigger)
    assert warning is not None
    assert trigger in warning


@pytest.mark.parametrize("trigger", ["mrzkqv", "mrzkqv woman", "ohwx"])
def test_made_up_ones_are_not(trigger: str) -> None:
    assert trigger_warning(trigger) is None


def test_clips_vocabulary_knows_more_words(tmp_path: Path) -> None:
    folder = tmp_path / "openai_clip-vit-large-patch14"
    folder.mkdir()
    vocabulary = {"zendaya</w>": 35_956, "sks</w>": 48_136, "zen": 90}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    words = ordinary_words(tmp_path)
    assert trigger_warning("zendaya", words) is not None
    assert trigger_warning("sks", words) is None
    assert trigger_warning("zen", words) is None


@pytest.mark.parametrize("body", [None, "not json"])
def test_without_a_vocabulary_the_short_list(tmp_path: Path, body: str | None) -> None:
    if body is not None:
        folder = tmp_path / "openai_clip-vit-large-patch14"
        folder.mkdir()
        (folder / "vocab.json").write_text(body)
    assert ordinary_words(tmp_path) == ORDINARY_WORDS


def test_a_trigger_beyond_what_is_read_leads_as_well() -> None:
    early = "a photo of mrzkqv, " + "and so on, " * 100
    late = "a photo with a sea, " * 60 + "of mrzkqv"
    assert with_trigger(early, "mrzkqv", "person") == early.strip()
    assert with_trigger(late, "mrzkqv", "person") == f"mrzkqv person, {late}"


@given(caption=st.text(max_size=2000))
def test_the_trigger_is_always_read(caption: str) -> None:
    """Within 225 tokens even if each byte but spaces were one and a half."""
    given = with_trigger(caption, "mrzkqv", "person")
    at = given.lower().index("mrzkqv")
    assert len(given[:at].replace(" ", "").encode()) <= 450


def test_captions_longer_than_the_trainer_reads_are_warned_of() -> None:
    assert length_warning(["a woman, smiling", "word " * 200]) is None
    assert (length_warning(["word " * 300, "x"]) or "").startswith("1 captions")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ohwx woman", ("ohwx", "woman")),
        ("ohwx", ("ohwx", None)),
        ("zkv old man", ("zkv", "old man")),
        ("portrait photos", None),
        ("woman", None),
    ],
)
def test_the_words_of_kohyas_folders(words: str, found: tuple[str, str | None] | None) -> None:
    assert words_of_folder(words) == found
