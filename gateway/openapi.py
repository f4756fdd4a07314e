"""The API's description: the contract's own schema, so that the documentation says its limits."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from worker.contract import JOB

_REF = "#/components/schemas/{model}"
_GIVEN_BY_THE_ROUTE = ("task", "request_id", "action")


def takes(*models: str) -> dict[str, Any]:
    """The request body of a route: one of the contract's jobs, without what its path says."""
    choices = [{"$ref": _REF.format(model=model)} for model in models]
    schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in JOB.json_schema(ref_template=_REF)["$defs"].items():
            schemas[name] = _of_route(schema) if name.endswith("Job") else schema
        app.openapi_schema = document
    return app.openapi_schema


def _of_route(schema: dict[str, Any]) -> dict[str, Any]:
    properties = {
        name: value
        for name, value in schema.get("properties", {}).items()
        if name not in _GIVEN_BY_THE_ROUTE
    }
    properties["webhook"] = {"type": "string", "description": "Told when the job ends, signed."}
    required = [name for name in schema.get("required", ()) if name not in _GIVEN_BY_THE_ROUTE]
    return {**schema, "properties": properties, "required": required}
