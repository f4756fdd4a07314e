"""Who is in the picture: characters looked up, their LoRAs fetched and held."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lora_registry.character import UsableVersion
from worker.contract import CharacterUse
from worker.errors import InvalidInput
from worker.generation.prompts import Trigger
from worker.resources import JobContext, Resources
from worker.results import CharacterResult
from workflows.binding import LoraUse
from workflows.template import Workflow


@dataclass(frozen=True, slots=True)
class Role:
    """One character of a job, resolved: the version that is used, and how strongly."""

    version: UsableVersion
    strength: float

    @property
    def trigger(self) -> Trigger:
        """Its trigger, for the prompt."""
        return Trigger(self.version.character_id, self.version.trigger)

    def result(self) -> CharacterResult:
        """What the job's result says of it."""
        return CharacterResult(
            character_id=self.version.character_id,
            version=self.version.version,
            strength=self.strength,
            trigger=self.version.trigger,
        )


def cast(
    uses: Sequence[CharacterUse], workflow: Workflow, resources: Resources
) -> tuple[Role, ...]:
    """Resolve every character, side by side: one conditional GET each.

    Raises:
        CharacterNotFound, VersionNotFound, StoreError: as the registry says.
        InvalidInput: a LoRA for another base model than the workflow's.
    """
    if not uses:
        return ()
    if not workflow.loras:
        raise InvalidInput(f"workflow: {workflow.name!r} takes no characters.", field="workflow")
    return tuple(resources.pool.map(lambda use: _resolve(use, workflow, resources), uses))


def _resolve(use: CharacterUse, workflow: Workflow, resources: Resources) -> Role:
    version = resources.registry.resolve(use.character_id, use.version)
    if version.base_model != workflow.base_model:
        raise InvalidInput(
            f"character_id: {use.character_id!r} was trained on {version.base_model}, workflow "
            f"{workflow.name!r} runs on {workflow.base_model}; choose another workflow.",
            field="character_id",
            details={"character": version.base_model, "workflow": workflow.base_model},
        )
    return Role(version, version.strength if use.strength is None else use.strength)


@contextlib.contextmanager
def held_loras(
    roles: Sequence[Role], resources: Resources, context: JobContext
) -> Iterator[tuple[LoraUse, ...]]:
    """Fetch every LoRA, side by side, and keep the files from eviction while inside.

    Raises:
        LoraCorrupt, VersionNotFound, StoreError, Cancelled: as the cache says.
    """
    with ExitStack() as leases:

        def hold(role: Role) -> Path:
            lease = resources.loras.lease(role.version, check_cancelled=context.cancel.check)
            return leases.enter_context(lease)

        with context.timings.phase("loras"):
            futures = [resources.pool.submit(hold, role) for role in roles]
            wait(futures)  # all of them: a failed one must not leave another's lease behind
            paths = [future.result() for future in futures]
        yield tuple(
            LoraUse(path.name, role.strength) for path, role in zip(paths, roles, strict=True)
        )
