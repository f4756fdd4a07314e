"""`python -m worker.schema`: the contract as JSON Schema, for `docs/contract.schema.json`."""

import json
import sys
from typing import Any

from pydantic import TypeAdapter

from worker.contract import JOB
from worker.results import ErrorResult, GenerationResult


def contract_schema() -> dict[str, Any]:
    """Jobs as the root; results and errors under `$defs`."""
    schema = JOB.json_schema()
    for result in (GenerationResult, ErrorResult):
        answer = TypeAdapter(result).json_schema()
        schema["$defs"] |= answer.pop("$defs", {})
        schema["$defs"][result.__name__] = answer
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The input of a job",
        **schema,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(contract_schema(), indent=2, sort_keys=True) + "\n")
