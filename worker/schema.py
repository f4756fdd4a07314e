"""`python -m worker.schema`: the contract as JSON Schema, for `docs/contract.schema.json`."""

import json
import sys
from typing import Any, Final

from pydantic import TypeAdapter

from worker.contract import JOB
from worker.health_results import HealthResult
from worker.results import (
    CharacterChangedResult,
    CharacterDetailResult,
    CharacterErasedResult,
    CharacterPageResult,
    ErrorResult,
    GenerationResult,
)
from worker.training_results import TrainResult

_RESULTS: Final = (
    *(GenerationResult, TrainResult, HealthResult, ErrorResult),
    *(CharacterPageResult, CharacterDetailResult, CharacterChangedResult, CharacterErasedResult),
)


def contract_schema() -> dict[str, Any]:
    """Jobs as the root; results and errors under `$defs`."""
    schema = JOB.json_schema()
    for result in _RESULTS:
        of_result = TypeAdapter(result).json_schema(mode="serialization")
        schema["$defs"] |= of_result.pop("$defs", {})
        schema["$defs"][result.__name__] = of_result
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The input of a job",
        **schema,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(contract_schema(), indent=2, sort_keys=True) + "\n")
