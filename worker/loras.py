"""A LoRA file looked into: its header by `lora_registry`, its base model by `families`."""

from collections.abc import Callable
from pathlib import Path

from families.recognition import LoraFacts, Recogniser
from lora_registry.tensorfile import check_finite, read_header


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
    file = read_header(path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    facts = recogniser.facts(shapes, file.metadata, size=file.size, base_model=base_model)
    check_finite(path, file, check_cancelled=check_cancelled)
    return facts
