"""The manifest beside a job's outputs: all it takes to make them again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from worker.contract import Generation
from worker.generation.casting import Role
from worker.results import GenerationResult
from workflows.template import Value

MANIFEST_VERSION: Final = 1


def manifest_of(
    result: GenerationResult,
    job: Generation,
    *,
    roles: Sequence[Role],
    values: Mapping[str, Value | None],
    versions: Mapping[str, str],
) -> bytes:
    """The manifest as JSON: input, seed, workflow digest, LoRA sha256, versions, outputs, timings.

    It has no URL, since those expire, and no base64, since the input picture is the caller's.
    """
    document = result.to_json()
    del document["manifest"]
    for output in document["outputs"]:
        del output["url"]
        output.pop("expires_at", None)
    document |= {
        "manifest_version": MANIFEST_VERSION,
        "input": described_input(job),
        "values": {name: value for name, value in values.items() if value is not None},
        "loras": [
            {
                "character_id": role.version.character_id,
                "version": role.version.version,
                "sha256": role.version.sha256,
                "key": role.version.key,
                "strength": role.strength,
            }
            for role in roles
        ],
        "versions": dict(versions),
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def described_input(job: Generation) -> dict[str, Any]:
    """The job's input as the manifest keeps it: a base64 source by its digest, not its bytes."""
    described = job.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for value in described.values():
        if isinstance(value, dict) and "base64" in value:
            digest = hashlib.sha256(value.pop("base64").encode()).hexdigest()
            value["base64_sha256"] = digest
    return {"task": job.model_dump()["task"], **described}
