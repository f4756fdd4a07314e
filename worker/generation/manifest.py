"""The manifest beside a job's outputs: all it takes to make them again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from worker.contract import Generation
from worker.generation.used_characters import ResolvedCharacter
from worker.results import GenerationResult
from workflows.template import OWN_FIELDS, Value

MANIFEST_VERSION: Final = 1


def manifest_of(
    result: GenerationResult,
    job: Generation,
    *,
    characters: Sequence[ResolvedCharacter],
    values: Mapping[str, Value | None],
    versions: Mapping[str, str],
) -> bytes:
    """The manifest as JSON: input, seed, workflow digest, LoRA sha256, versions, outputs, timings.

    It has no URL of an object of ours, since those expire, no base64, since the input picture is
    the caller's, and of a source's URL only where it leads: its query may hold a signature.
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
                "character_id": character.version.character_id,
                "version": character.version.version,
                "sha256": character.version.sha256,
                "key": character.version.key,
                "strength": character.strength,
            }
            for character in characters
        ],
        "versions": dict(versions),
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def described_input(job: Generation) -> dict[str, Any]:
    """The job's input as the manifest keeps it.

    A base64 source is kept by its digest; of a URL, neither query nor user name are kept.
    """
    described = job.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    own = [described[name] for name in OWN_FIELDS if name in described]
    for source in (*own, *described.get("inputs", {}).values()):
        if "base64" in source:
            digest = hashlib.sha256(source.pop("base64").encode()).hexdigest()
            source["base64_sha256"] = digest
        if "url" in source:
            parts = urlsplit(source["url"])
            place = parts.netloc.rpartition("@")[2]
            source["url"] = urlunsplit((parts.scheme, place, parts.path, "", ""))
    return {"task": job.model_dump()["task"], **described}
