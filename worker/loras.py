"""A LoRA file looked into: its header by `lora_registry`, its base model by `families`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from families.recognition import LoraFacts, Recogniser
from lora_registry.errors import LoraCorrupt
from lora_registry.tensorfile import check_finite, read_header
from worker.nature import nature_of

_HEAD_BYTES: Final = 512
_HEADER_AT: Final = 8  # safetensors: a length, then JSON
_ADVICE: Final[Mapping[str, str]] = {
    "a login page": "give a URL that needs no login, or put the site's token into it",
    "a web page": "give the address of the file itself, not of its page",
    "a git-lfs pointer instead of its file": "give the address that the file itself is fetched by",
    "a pickle (.pt, .ckpt, .bin)": "it could run code; save the LoRA as safetensors",
    "a GGUF model": "register a LoRA in safetensors",
    "a JSON message of a server": "its address answers an error, or asks for a token",
    "an XML message of a server": "its address answers an error, or has expired",
}


def examine(
    path: Path,
    recogniser: Recogniser,
    *,
    base_model: str | None = None,
    check_cancelled: Callable[[], None] | None = None,
) -> LoraFacts:
    """Say what a LoRA file is, every value looked at.

    Args:
        path: a local file, whatever it holds.
        recogniser: of the families that this worker knows.
        base_model: the family that a person says it is; checked.
        check_cancelled: called between chunks; what it raises ends the reading.

    Raises:
        LoraCorrupt, LoraDamaged: not safetensors, not whole, or a value that is not finite.
        LoraRejected, FamilyNotFound: as `Recogniser.facts` says.
    """
    _refuse_other_files(path)
    file = read_header(path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    facts = recogniser.facts(shapes, file.metadata, size=file.size, base_model=base_model)
    check_finite(path, file, check_cancelled=check_cancelled)
    return facts


def _refuse_other_files(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    # The length before a safetensors header may have any bytes, a pickle's or a picture's too.
    nature = None if head[_HEADER_AT:].startswith(b"{") else nature_of(head)
    if nature is not None:
        advice = _ADVICE.get(nature, "unpack it first" if "archive" in nature else "")
        raise LoraCorrupt(f"The file is {nature}, not safetensors{advice and '; '}{advice}.")
