"""Bytes inside a job go into the bucket, so that records stay small and RunPod's 10 MB suffice."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.problems import Invalid
from lora_registry.store import Store

INPUTS: Final = "inputs/"
_KEPT_CHARS: Final = 1024
_DATA_URI: Final = re.compile(r"data:[a-z0-9.+-]+/[a-z0-9.+-]+;base64,", re.IGNORECASE)


def lifted(job_input: Mapping[str, Any], job_id: str, store: Store) -> dict[str, Any]:
    """The input with every `base64` source replaced by the `key` of an object that holds it.

    The same job gives the same keys, so a retry writes the same objects again.

    Raises:
        Invalid: base64 that is none.
        StoreError: the bucket did not take it.
    """
    count = 0

    def lift(value: Any, field: str) -> Any:
        nonlocal count
        if isinstance(value, list):
            return [lift(each, f"{field}.{index}") for index, each in enumerate(value)]
        if not isinstance(value, dict):
            return value
        text = value.get("base64")
        if not isinstance(text, str) or len(text) <= _KEPT_CHARS:
            return {name: lift(each, f"{field}.{name}") for name, each in value.items()}
        key = f"{INPUTS}{job_id}/{count}"
        count += 1
        store.put(key, _decoded(text, field), "application/octet-stream")
        return {**{name: each for name, each in value.items() if name != "base64"}, "key": key}

    return {name: lift(value, name) for name, value in job_input.items()}


def _decoded(text: str, field: str) -> bytes:
    found = _DATA_URI.match(text)
    try:
        return base64.b64decode(text[found.end() :] if found else text, validate=True)
    except (binascii.Error, ValueError) as error:
        sentence = f"{field}.base64: must be base64 without line breaks."
        raise Invalid(sentence, field=f"{field}.base64") from error
