"""What a version's photos say of a face, as numbers: what its pictures are measured against.

Biometric data. It lies beside the training's report, `characters/{id}/training/{version}/`, so that
it is exported, swept and erased with the character, and no listing of versions meets it.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_registry import layout
from lora_registry.errors import DocumentInvalid
from lora_registry.records import Memory
from lora_registry.store import ObjectMissing, Store

_REMEMBERED: Final = 256  # of 128 numbers each


class FaceIdentity(BaseModel):
    """The face of the photos' subject.

    Attributes:
        scorer: what turned faces into numbers; those of another scorer or version do not compare.
        centre: the mean of the photos' faces.
        typical: the median likeness of a photo to the others, 0 to 1: what photos themselves reach.
        photos: how many show the subject.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    scorer: str
    scorer_version: str
    centre: Annotated[tuple[float, ...], Field(min_length=1)]
    typical: float | None = None
    photos: Annotated[int, Field(ge=1)]


class Identities:
    """The identities of one bucket; safe to share between threads.

    Args:
        store: the bucket.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._memory: Memory[FaceIdentity] = Memory(_REMEMBERED)

    def get(self, character_id: str, version: str) -> FaceIdentity | None:
        """A version's identity, from memory after the first time; None where none was kept.

        Raises:
            StoreError: the store did not say.
            DocumentInvalid: what is there is no identity.
        """
        key = layout.identity_key(character_id, version)
        known = self._memory.get(key)
        if known is not None:
            return known
        try:
            found = FaceIdentity.model_validate_json(self._store.get(key).body)
        except ObjectMissing:  # not remembered: a training writes it after its version
            return None
        except ValidationError as error:
            raise DocumentInvalid(key, "it is damaged") from error
        return self._memory.put(key, found)

    def put(self, character_id: str, version: str, identity: FaceIdentity) -> None:
        """Keep a version's identity. Raises StoreError."""
        key = layout.identity_key(character_id, version)
        self._store.put(key, identity.model_dump_json(indent=1).encode())
        self._memory.put(key, identity)
