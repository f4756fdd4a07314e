"""How much of a character's LoRA the running checkpoint really took, by what ComfyUI logged.

A LoRA that fits its family by name can still meet a checkpoint of another shape. ComfyUI then
completes the prompt and shows a stranger; here that is an error, or a warning in the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from families.adapters import split_key
from lora_registry.tensorfile import read_header
from worker.comfyui.console import Unapplied
from worker.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Applied:
    """One LoRA of a prompt.

    Attributes:
        character_id: whose it is.
        path: the local file.
        modules: of the file.
        lost: of those, how many changed nothing.
    """

    character_id: str
    path: Path
    modules: int
    lost: int


def applied(character_id: str, path: Path, unapplied: Unapplied, *, alone: bool) -> Applied:
    """Count a file's modules, and those that were lost.

    Args:
        character_id: whose it is.
        path: the file, whole: the cache has checked it.
        unapplied: what ComfyUI said during the prompt.
        alone: no other LoRA was in the prompt, so that weights that did not fit are this one's.
    """
    parts = [(key, split[0]) for key in read_header(path).tensors if (split := split_key(key))]
    modules = {module for _, module in parts}
    lost = {module for key, module in parts if key in unapplied.keys}
    misfits = len(unapplied.weights) if alone else 0
    return Applied(character_id, path, len(modules), min(len(modules), len(lost) + misfits))


def warnings_of(used: Sequence[Applied], workflow: str) -> list[str]:
    """What the result says of LoRAs that were applied in part.

    Raises:
        InvalidInput: nothing of one was applied, so that the picture shows somebody else.
    """
    warnings = []
    for lora in used:
        counts = {"modules": lora.modules, "not_applied": lora.lost}
        if lora.lost and lora.lost == lora.modules:
            raise InvalidInput(
                f"character_id: the checkpoint of workflow {workflow!r} takes none of the "
                f"{lora.modules} modules of {lora.character_id!r}'s LoRA; choose a workflow whose "
                "checkpoint it was trained for.",
                field="character_id",
                details={"character_id": lora.character_id, **counts},
            )
        if lora.lost:
            warnings.append(
                f"The checkpoint of workflow {workflow!r} takes {lora.modules - lora.lost} of the "
                f"{lora.modules} modules of {lora.character_id!r}'s LoRA; expect less likeness."
            )
    return warnings
