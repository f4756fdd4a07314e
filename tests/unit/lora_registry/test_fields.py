"""One rule for each field: contract, registry and command line agree on every text."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_registry import fields
from lora_registry.versions import NewVersion, checked
from worker.contract import CharactersJob, TrainJob, parse_job
from worker.errors import InvalidInput


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Jürgen Müller", "Jürgen Müller"),
        ("Ju\u0308rgen", "J\u00fcrgen"),  # composed
        ("田中\u3000花", "田中 花"),
        ("Zoe\u00a0Kravitz", "Zoe Kravitz"),
        ("  ohwx ", "ohwx"),
        ("woman\n", "woman"),
        ("Mira\tMuster", "Mira Muster"),
        ("Mira 👩\u200d🦰", "Mira 👩\u200d🦰"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # noqa: RUF001 - Persian
        ("ශ්\u200dරී", "ශ්\u200dරී"),
        ("co\u00adop", "co\u00adop"),
        ("O'Brien-Łukasz, Jr.", "O'Brien-Łukasz, Jr."),
    ],
)
def test_peoples_names_pass_in_one_form(given: str, kept: str) -> None:
    assert fields.short_text(given) == kept


@pytest.mark.parametrize(
    "text", ["", "   ", "\u200b", "\u3000\u200d", "a\x00b", "a\x1bb", "\x7f", "a\x85b", "x" * 201]
)
def test_what_nobody_can_see_or_keep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must "):
        fields.short_text(text)


def test_a_name_may_grow_by_composing_but_not_beyond_the_limit() -> None:
    with pytest.raises(ValueError, match="200"):
        fields.short_text("\u0958" * 150)  # excluded from composition: two characters each


@given(text=st.text(st.characters(), min_size=1, max_size=220))
def test_what_the_contract_accepts_the_registry_keeps_as_it_is(text: str) -> None:
    words = {"character_id": "mira", "name": text, "trigger": text, "class_noun": text}
    register = {"task": "characters", "action": "register", "source": {"key": "inputs/a"}}
    train = {"task": "train", "archive": {"key": "inputs/a"}}
    for base in (register, train):
        try:
            job = parse_job(base | words)
        except InvalidInput:
            continue
        assert isinstance(job, CharactersJob | TrainJob)
        new = NewVersion(
            character_id=job.character_id or "",
            job_id="job",
            weights=Path("lora"),
            base_model="sdxl",
            format="kohya",
            rank=4,
            trigger=job.trigger or "",
            class_noun=job.class_noun or "",
            name=job.name,
        )
        assert checked(new) == new
        assert unicodedata.is_normalized("NFC", new.trigger)


@given(text=st.text(max_size=140))
def test_ids_are_the_same_to_contract_and_registry(text: str) -> None:
    for rule, job in (
        (fields.character_id, {"task": "characters", "action": "get", "character_id": text}),
        (
            fields.version_id,
            {"task": "characters", "action": "activate", "character_id": "a", "version": text},
        ),
    ):
        outcomes = []
        for attempt in (lambda rule=rule: rule(text), lambda job=job: parse_job(job)):
            try:
                attempt()
                outcomes.append(True)
            except (ValueError, InvalidInput):
                outcomes.append(False)
        assert len(set(outcomes)) == 1


def test_a_trigger_that_a_file_states_badly_is_passed_over() -> None:
    assert fields.trigger_of(None, "x" * 500, "mira") == "mira"
    assert fields.trigger_of(None, "bad\x00one", "mira") == "mira"
    assert fields.trigger_of("zkv ", "other", "mira") == "zkv"
