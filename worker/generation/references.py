"""Which photo of whom goes where, and what a prompt calls somebody known by photos. Pure."""

from collections.abc import Collection, Sequence

from lora_registry.character import CharacterRecord, Reference
from workflows.template import Workflow


def shared(
    records: Sequence[CharacterRecord], inputs: Sequence[str]
) -> dict[str, dict[str, Reference]]:
    """Which photo of whom goes where: everybody's first, then everybody's second, as they fit.

    The photos of one character stand side by side, in the characters' order.
    """
    counts = dict.fromkeys((record.character_id for record in records), 0)
    left = len(inputs)
    while left:
        hungry = [each for each in records if counts[each.character_id] < len(each.references)]
        for record in hungry[:left]:
            counts[record.character_id] += 1
            left -= 1
        if not hungry:
            break
    names = iter(inputs)
    return {
        record.character_id: {
            next(names): photo for photo in record.references[: counts[record.character_id]]
        }
        for record in records
    }


def shown_in(class_noun: str, photos: Collection[str], workflow: Workflow) -> str:
    """What a prompt calls somebody who is known by photos: `the woman in image 1`.

    Images are counted as the models that take them do: the workflow's references in their order.
    """
    numbers = [str(workflow.references.index(name) + 1) for name in photos]
    if len(numbers) == 1:
        return f"the {class_noun} in image {numbers[0]}"
    return f"the {class_noun} in images {', '.join(numbers[:-1])} and {numbers[-1]}"
