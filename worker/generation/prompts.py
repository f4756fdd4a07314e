"""Placing characters' triggers in a prompt. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

PLACE = re.compile(r"\{trigger(?::(?P<character_id>[a-z0-9][a-z0-9_-]{0,63}))?\}")


@dataclass(frozen=True, slots=True)
class Trigger:
    """The word that a character's LoRA was trained on."""

    character_id: str
    word: str


def place_triggers(prompt: str, triggers: Sequence[Trigger]) -> str:
    """Put every trigger into the prompt once.

    `{trigger}` marks the place (with several characters: of all that have no place of their own),
    `{trigger:mira}` the place of one; a trigger that the prompt carries already is left alone; any
    other leads the prompt. Without characters the marks go.
    """
    words = {trigger.character_id: trigger.word for trigger in triggers}
    own = {match["character_id"] for match in PLACE.finditer(prompt)} & set(words)
    bare = PLACE.sub(" ", prompt)
    others = [
        trigger.word
        for trigger in triggers
        if trigger.character_id not in own and not carries(bare, trigger.word)
    ]
    marked = any(match["character_id"] is None for match in PLACE.finditer(prompt))

    def replacement(match: re.Match[str]) -> str:
        named = match["character_id"]
        return ", ".join(others) if named is None else words.get(named, "")

    placed = _tidy(PLACE.sub(replacement, prompt)) if PLACE.search(prompt) else prompt
    return placed if marked or not others else ", ".join([*others, placed])


def carries(prompt: str, word: str) -> bool:
    """Whether the prompt has the trigger as a word of its own, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None


def _tidy(text: str) -> str:
    return re.sub(r"\s+([,.])", r"\1", re.sub(r" {2,}", " ", text)).strip(" ,")
