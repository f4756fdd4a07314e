"""Bytes inside a job go into the bucket, so that records stay small and RunPod's 10 MB suffice."""

import io
import re
from collections.abc import Mapping
from typing import Any, Final

from lora_registry.store import Store
from worker.contract_fields import long_form
from worker.sources.reader import decode

INPUTS: Final = "inputs/"
_KEPT_CHARS: Final = 1024
_TEXTS: Final = frozenset({"prompt", "negative_prompt", "params"})  # never sources
_DATA_URI: Final = re.compile(r"data:[^,]{0,256},", re.IGNORECASE)


def lifted(job_input: Mapping[str, Any], job_id: str, store: Store) -> dict[str, Any]:
    """The input with the `key` of an object in place of every base64 source and data: URI.

    The same job gives the same keys, so a retry writes the same objects again.

    Raises:
        InvalidInput: base64 that is none.
        StoreError: the bucket did not take it.
    """
    count = 0

    def lift(value: Any, field: str) -> Any:
        nonlocal count
        if isinstance(value, str) and _DATA_URI.match(value) and len(value) > _KEPT_CHARS:
            value = {"base64": value}
        if isinstance(value, list):
            return [lift(each, f"{field}.{index}") for index, each in enumerate(value)]
        if not isinstance(value, dict):
            return value
        fields = long_form(value)
        text = fields.get("base64")
        if not isinstance(text, str) or len(text) <= _KEPT_CHARS:
            return {name: lift(each, f"{field}.{name}") for name, each in fields.items()}
        key = f"{INPUTS}{job_id}/{count}"
        count += 1
        body = io.BytesIO()
        decode(text, body, field=f"{field}.base64", max_bytes=len(text))
        store.put(key, body.getvalue(), "application/octet-stream")
        return {**{name: each for name, each in fields.items() if name != "base64"}, "key": key}

    return {
        name: value if name in _TEXTS else lift(value, name) for name, value in job_input.items()
    }
