"""A refused `input` as one sentence: the field at fault and everything it may be. Pure.

pydantic names the bound that was crossed; people want the whole range. It stands in the contract's
JSON Schema, where this finds it by walking the error's location.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic_core import ErrorDetails

Schema = Mapping[str, Any]
_NAMES: Final = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_SHOWN: Final = 64


def refusal(error: ErrorDetails, schema: Schema) -> tuple[str, str]:
    """The dotted field, and the sentence about it without the field's name and the full stop.

    Args:
        error: pydantic's first complaint about a job.
        schema: the contract's JSON Schema.
    """
    kind = error["type"]
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        tasks = ", ".join(schema["discriminator"]["mapping"])
        return "task", f"must be one of {tasks}"
    path, node = _found(error["loc"], schema)
    field = ".".join(path) or "input"
    if kind == "extra_forbidden":
        extra = "".join(char for char in str(error["loc"][-1]) if char.isprintable())
        return ".".join([*path, extra[:_SHOWN] or "(unnamed)"]), "is not a field of this task"
    if kind == "missing":
        return field, "is required"
    if kind == "value_error":
        return field, str(error["ctx"]["error"])
    return field, f"must be {allowed(node, schema)}"


def allowed(node: Schema, schema: Schema) -> str:
    """What a schema node lets pass, as the end of 'must be …'."""
    choices = [_resolved(choice, schema) for choice in node.get("anyOf", ())]
    if choices:
        return " or ".join(
            allowed(choice, schema) for choice in choices if choice.get("type") != "null"
        )
    if "enum" in node or "const" in node:
        values = node.get("enum", [node.get("const")])
        return ("one of " if len(values) > 1 else "") + ", ".join(map(str, values))
    name = _NAMES.get(node.get("type", ""), "something else")
    return " ".join([name, *_bounds(node)])


def _bounds(node: Schema) -> Iterator[str]:
    low, high = node.get("minimum"), node.get("maximum")
    if "exclusiveMinimum" in node:
        yield f"above {node['exclusiveMinimum']:g}"
    if low is not None and high is not None:
        yield f"from {low} to {high}"
    elif high is not None:
        yield f"up to {high:g}"
    if "multipleOf" in node:
        yield f"and a multiple of {node['multipleOf']}"
    yield from (
        f"of {node.get(f'min{of}', 0)} to {node[f'max{of}']} {things}"
        for of, things in (("Items", "items"), ("Properties", "names"))
        if f"max{of}" in node
    )
    if "pattern" in node:
        yield f"matching {node['pattern']}"
    elif "maxLength" in node:
        yield f"of {node.get('minLength', 0)} to {node['maxLength']} characters"


def _found(location: Sequence[int | str], schema: Schema) -> tuple[list[str], Schema]:
    """Follow a location as far as the schema goes; what pydantic adds (union members) is left."""
    task, *rest = location or ("",)
    reference = schema["discriminator"]["mapping"].get(task)
    if reference is None:
        return [], {}
    node = _resolved({"$ref": reference}, schema)
    path: list[str] = []
    for part in rest:
        below = _below(node, part, schema)
        if below is None:
            break
        path.append(str(part)[:_SHOWN])
        node = below
    return path, node


def _below(node: Schema, part: int | str, schema: Schema) -> Schema | None:
    for candidate in _choices(node, schema):
        if isinstance(part, int) and "items" in candidate:
            return _resolved(candidate["items"], schema)
        if part in candidate.get("properties", {}):
            return _resolved(candidate["properties"][part], schema)
        extra = candidate.get("additionalProperties")
        if isinstance(extra, dict):
            return _resolved(extra, schema)
    return None


def _choices(node: Schema, schema: Schema) -> Iterator[Schema]:
    """All that a node may be, alternatives of alternatives included."""
    if "anyOf" not in node:
        yield node
    for choice in node.get("anyOf", ()):
        yield from _choices(_resolved(choice, schema), schema)


def _resolved(node: Schema, schema: Schema) -> Schema:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
