"""What is written beside each photo: the user's own words, or a captioner's, with the trigger in.

Cached text-encoder outputs forbid dropping and shuffling captions, so a caption is used as it is.
"""

import hashlib
import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from PIL import Image

from worker.generation.used_characters import carries
from worker.training.kohya_command import MAX_TOKENS

_CONSONANTS: Final = "bdfghjklmnpqrstvwxzk"
_TRIGGER_LETTERS: Final = 6
_COMMON_TOKENS: Final = 40_000  # CLIP's vocabulary is ordered by frequency; `sks` stands at 48,136
_WORD_END: Final = "</w>"
_PIECE: Final = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")  # a word, a digit, a sign
_ORDINARY: Final = """
    a an and anime art baby beautiful boy brother cat character child cute dog drawing eye face
    family father female friend girl hair hero image kid king lady love male man me men model mother
    my person photo photograph picture portrait prince princess queen selfie sister style subject
    the trigger woman women world
"""
ORDINARY_WORDS: Final = frozenset(_ORDINARY.split())


class Captioner(Protocol):
    """Describes one photo; the trigger is put in afterwards where it is missing."""

    @property
    def name(self) -> str:
        """Which captioner, for the manifest."""
        ...

    def caption(self, image: Image.Image) -> str:
        """The caption of an RGB picture."""
        ...


@dataclass(frozen=True, slots=True)
class TemplateCaptioner:
    """`{trigger} {class_noun}` for every photo: plain, and right for one subject."""

    trigger: str
    class_noun: str

    @property
    def name(self) -> str:
        """`template`."""
        return "template"

    def caption(self, image: Image.Image) -> str:  # noqa: ARG002 - the protocol's
        """The same two words whatever is in the picture."""
        return f"{self.trigger} {self.class_noun}"


def with_trigger(caption: str, trigger: str, class_noun: str) -> str:
    """The caption led by trigger and class noun, unless the trigger stands in it as a word.

    Where it stands so late that the trainer may not read as far, it leads as well.
    """
    text = caption.strip()
    if carries(_surely_read(text), trigger):
        return text
    return f"{trigger} {class_noun}, {text}" if text else f"{trigger} {class_noun}"


def words_of_folder(words: str) -> tuple[str, str | None] | None:
    """Trigger and class noun in the name of kohya's folder, without its number ("ohwx woman").

    None where the first word is an ordinary one: then it is a folder of holidays, not of training.
    """
    trigger, _, noun = words.partition(" ")
    if trigger_warning(trigger) is not None:
        return None
    return trigger, noun or None


def length_warning(captions: Sequence[str]) -> str | None:
    """A sentence when captions are longer than the kohya trainer reads, by a careful count."""
    longer = sum(_about_tokens(caption) > MAX_TOKENS for caption in captions)
    if not longer:
        return None
    return (
        f"{longer} captions are longer than the {MAX_TOKENS} tokens (about 170 words) that the "
        "kohya trainer reads; their ends are not trained."
    )


def _surely_read(text: str) -> str:
    """The beginning that has at most `MAX_TOKENS` tokens even if every two bytes are one."""
    tokens = 0
    for piece in _PIECE.finditer(text):
        tokens += math.ceil(len(piece[0].encode()) / 2)
        if tokens > MAX_TOKENS:
            return text[: piece.start()]
    return text


def _about_tokens(text: str) -> int:
    """Tokens as CLIP cuts English: a word is one, a long one more, and so is each sign."""
    return sum(math.ceil(len(piece.encode()) / 8) for piece in _PIECE.findall(text))


def derived_trigger(character_id: str) -> str:
    """A token that means nothing yet: six consonants that follow from the character's id."""
    digest = hashlib.sha256(character_id.encode()).digest()[:_TRIGGER_LETTERS]
    return "".join(_CONSONANTS[byte % len(_CONSONANTS)] for byte in digest)


def trigger_warning(trigger: str, ordinary: Collection[str] = ORDINARY_WORDS) -> str | None:
    """A sentence when every word of the trigger is one that the model already knows."""
    words = re.split(r"[ _-]+", trigger.lower())
    if not all(word in ordinary for word in words if word):
        return None
    return (
        f"The trigger {trigger!r} is an ordinary word that the model already has a picture of; "
        "a made-up one such as 'mrzkqv' keeps the character apart."
    )


def ordinary_words(tokenizers: Path) -> Collection[str]:
    """The common words of CLIP's own vocabulary below `tokenizers`, else a short list.

    sd-scripts keeps it as `openai_clip-vit-large-patch14/vocab.json`, numbered by frequency.
    """
    path = tokenizers / "openai_clip-vit-large-patch14" / "vocab.json"
    try:
        vocabulary: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ORDINARY_WORDS
    common = (
        token.removesuffix(_WORD_END)
        for token, rank in vocabulary.items()
        if rank < _COMMON_TOKENS and token.endswith(_WORD_END)
    )
    return ORDINARY_WORDS | set(common)
