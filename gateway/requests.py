"""What a request says beyond its path: its JSON body, its preferences, its key for a retry."""

import json
import re
import uuid
from typing import Annotated, Any, Final, NoReturn, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from gateway.jobs import job_id_of
from gateway.problems import Invalid
from gateway.services import Services
from worker.refusals import refusal

M = TypeVar("M", bound=BaseModel)

MAX_WAIT_S: Final = 300  # RunPod's load balancer ends a request after 330 s
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])")
_MAX_KEY: Final = 255


def services_of(request: Request) -> Services:
    """The gateway's parts."""
    services: Services = request.app.state.services
    return services


Parts = Annotated[Services, Depends(services_of)]


async def json_body(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty one is an empty object. Raises Invalid, TooLarge."""
    body = await request.body()
    if not body:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Invalid("The body must be JSON, sent with Content-Type: application/json.")
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid("The body is not valid JSON.", field="body") from error
    if not isinstance(document, dict):
        raise Invalid("The body must be a JSON object.", field="body")
    return document


def parsed(model: type[M], document: dict[str, Any]) -> M:
    """A body as one of our models. Raises Invalid, in the contract's words."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        schema = model.model_json_schema()
        schema["$defs"] = {**schema.get("$defs", {}), "body": {**schema}}
        schema["discriminator"] = {"mapping": {"body": "#/$defs/body"}}
        fault = error.errors(include_url=False)[0]
        fault["loc"] = ("body", *fault["loc"])
        field, sentence = refusal(fault, schema)
        raise Invalid(f"{field}: {sentence}.", field=field) from None


def wait_s(request: Request) -> int:
    """How long the caller would rather wait for the end (`Prefer: wait=N`), in seconds."""
    found = _WAIT.search(request.headers.get("prefer", ""))
    return min(int(found[1]), MAX_WAIT_S) if found else 0


def job_id_for(request: Request) -> str:
    """The job's id: of the Idempotency-Key, else a new one. Raises Invalid."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return f"job-{uuid.uuid4().hex}"
    if not 1 <= len(key) <= _MAX_KEY:
        raise Invalid(
            f"Idempotency-Key must have 1 to {_MAX_KEY} characters.", field="Idempotency-Key"
        )
    return job_id_of(request.state.caller, key)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
