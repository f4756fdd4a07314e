from hypothesis import given
from hypothesis import strategies as st

from worker.generation.used_characters import Trigger, carries, place_triggers

MIRA = Trigger("mira", "ohwx")
LEO = Trigger("leo", "zkv man")


def test_a_trigger_leads_a_prompt_that_does_not_carry_it() -> None:
    assert place_triggers("a cafe", [MIRA]) == "ohwx, a cafe"


def test_a_prompt_that_carries_it_stays_as_it_is() -> None:
    assert place_triggers("photo of OHWX person", [MIRA]) == "photo of OHWX person"


def test_part_of_a_word_is_not_the_trigger() -> None:
    assert place_triggers("an ohwxian cafe", [MIRA]) == "ohwx, an ohwxian cafe"


def test_the_mark_is_the_place() -> None:
    assert place_triggers("photo of {trigger} person", [MIRA]) == "photo of ohwx person"


def test_one_mark_takes_all_characters_in_order() -> None:
    assert place_triggers("{trigger} at the sea", [MIRA, LEO]) == "ohwx, zkv man at the sea"


def test_a_named_mark_takes_its_own_character() -> None:
    prompt = "{trigger:leo} waves at {trigger:mira}"
    assert place_triggers(prompt, [MIRA, LEO]) == "zkv man waves at ohwx"


def test_a_character_without_a_place_leads() -> None:
    assert place_triggers("{trigger:leo} waves", [MIRA, LEO]) == "ohwx, zkv man waves"


def test_without_characters_marks_go() -> None:
    assert place_triggers("photo of {trigger} person, sunny", []) == "photo of person, sunny"


def test_other_braces_are_left_alone() -> None:
    assert place_triggers("{{x}} {a|b}", []) == "{{x}} {a|b}"


@given(st.text(max_size=200))
def test_the_trigger_is_always_there_once_placed(prompt: str) -> None:
    assert carries(place_triggers(prompt, [MIRA]), "ohwx")


@given(st.text(max_size=200))
def test_placing_twice_changes_nothing(prompt: str) -> None:
    once = place_triggers(prompt, [MIRA])
    assert place_triggers(once, [MIRA]) == once
