"""`python -m worker.schema`: the contract as JSON Schema, for `docs/contract.schema.json`."""

import json
import sys
from typing import Any, get_args

from pydantic import TypeAdapter

from worker.contract import JOB
from worker.results import JobResult


def contract_schema() -> dict[str, Any]:
    """Jobs as the root; results and errors under `$defs`."""
    schema = JOB.json_schema()
    for result in get_args(JobResult):
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
