"""What each field of a character may hold: one rule for contract, registry and command line. Pure.

The rules raise ValueError with the end of a sentence ("must be …"), to be put after a field's name.
"""

import re
import unicodedata
from typing import Final

CHARACTER_ID: Final = r"[a-z0-9][a-z0-9_-]{0,63}"
VERSION_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
MAX_TEXT: Final = 200  # characters of a name, a trigger, a class noun
MAX_STRENGTH: Final = 2.0

_CHARACTER_ID: Final = re.compile(CHARACTER_ID)
_VERSION_ID: Final = re.compile(VERSION_ID)
_BLANKS: Final = "\t\n\r"  # control characters that are white space, as a paste brings them
# What no text may hold: control characters, halves of a surrogate pair.
_REFUSED: Final = frozenset({"Cc", "Cs"})
# Joiners, direction marks, variation selectors, spaces: they shape a name, but are none.
_UNSEEN: Final = frozenset({"Cf", "Zs", "Zl", "Zp", "Mn"})


def character_id(text: str) -> str:
    """The id if it is one. Raises ValueError."""
    if not _CHARACTER_ID.fullmatch(text):
        raise ValueError("must be 1 to 64 of a-z, 0-9, '_' and '-', a letter or digit first")
    return text


def version_id(text: str) -> str:
    """The version's id if it is one. Raises ValueError."""
    if not _VERSION_ID.fullmatch(text):
        raise ValueError(
            "must be 1 to 128 of letters, digits, '_', '.' and '-', a letter or digit first"
        )
    return text


def short_text(text: str) -> str:
    """A name, trigger or class noun in its one form: NFC, white space folded, ends trimmed.

    Any script passes, with the joiners, marks and wide spaces that people's names have.

    Raises:
        ValueError: control characters, nothing to see, or above 200 characters.
    """
    if any(unicodedata.category(char) in _REFUSED and char not in _BLANKS for char in text):
        raise ValueError("must not contain control characters")
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    seen = any(unicodedata.category(char) not in _UNSEEN for char in folded)
    if not seen or len(folded) > MAX_TEXT:
        raise ValueError(f"must be 1 to {MAX_TEXT} characters, one of them visible")
    return folded


def strength(value: float) -> float:
    """A LoRA's strength, -2 to 2. Raises ValueError, also for what is not a number."""
    if not -MAX_STRENGTH <= value <= MAX_STRENGTH:
        raise ValueError(f"must be from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}")
    return value


def trigger_of(*candidates: str | None) -> str:
    """The first candidate that can be a trigger; what a file says of itself may be anything.

    Raises:
        ValueError: none can be.
    """
    for candidate in candidates:
        try:
            return short_text(candidate or "")
        except ValueError:
            continue
    raise ValueError("must be given")
