"""What is wrong with a `workflow.toml`, in the words of who wrote it. Pure."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from workflows.template import (
    Budget,
    Input,
    Limits,
    LoraChain,
    Output,
    Param,
    Replacement,
    Workflow,
)

_TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "inputs": Input,
    "limits": Limits,
    "params": Param,
    "out_of_memory": Replacement,
}
_LISTS: Final[Mapping[str, type[BaseModel]]] = {
    "outputs": Output,
    "budgets": Budget,
    "loras": LoraChain,
}
_NOT_IN_TOML: Final = frozenset({"name", "digest", "graph", "files"})
_WANTED: Final = {
    "string_type": 'a text in quotes, like "9"',
    "bool_type": "true or false, without quotes",
    "bool_parsing": "true or false, without quotes",
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "model_type": "a table",
    "mapping_type": "a table",
    "dict_type": "a table",
    "tuple_type": 'a list, like ["width", "height"]',
}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean sampler?`, or what there is when nothing is near."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    begun = [known for known in words if word.startswith(known) or known.startswith(word)]
    if near or begun:
        return f"; did you mean {(near or begun)[0]}?"
    return f"; there is {', '.join(words)}" if words else ""


def sentence(error: ErrorDetails) -> str:
    """One complaint of pydantic about a `workflow.toml`, without the full stop."""
    *table, key = [part for part in error["loc"] if not _is_pydantics(part)] or [""]
    place = _place(table)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{place}{key} is not a key here{nearest(str(key), _keys(table))}"
    if kind == "missing":
        return f"{place}{key} is missing"
    if kind == "value_error":
        return f"{place}{key}: {context['error']}" if key != "" else f"{place}{context['error']}"
    if kind == "string_pattern_mismatch":
        return f"{place}{key} must be of letters, digits and underscores, 64 at most"
    if isinstance(key, int):  # one of several: [[outputs]] number 2
        table, place, key = [*table, key], _place([*table, key]), ""
    given = error["input"]
    if kind == "literal_error":
        choices = _choices(table, str(key))
        hint = nearest(str(given), choices) if isinstance(given, str) else ""
        return f"{place}{key} is {given!r}; it must be one of {', '.join(choices)}{_asked(hint)}"
    wanted = _WANTED.get(kind) or ("not empty" if kind == "too_short" else "something else")
    return f"{place}{key} is {_shown(given)}; it must be {wanted}".replace("  ", " ")


def _place(table: list[Any]) -> str:
    """`[params.shift] `: the table as it is written, before the key."""
    if not table:
        return "workflow.toml: "
    head, *rest = table
    numbers = [part for part in rest if isinstance(part, int)]
    if head in _LISTS and numbers:
        return f"workflow.toml, [[{head}]] number {numbers[0] + 1}: "
    return f"workflow.toml, [{'.'.join(map(str, table))}]: "


def _model(table: list[Any]) -> type[BaseModel] | None:
    if not table:
        return Workflow
    return _TABLES.get(str(table[0])) or _LISTS.get(str(table[0]))


def _keys(table: list[Any]) -> list[str]:
    model = _model(table)
    hidden = _NOT_IN_TOML if model is Workflow else frozenset()
    return [name for name in model.model_fields if name not in hidden] if model else []


def _choices(table: list[Any], key: str) -> list[str]:
    model = _model(table)
    annotation = model.model_fields[key].annotation if model and key in model.model_fields else None
    options = get_args(annotation)
    inner = [choice for option in options for choice in get_args(option)]
    return [str(choice) for choice in inner or options]


def _asked(hint: str) -> str:
    return hint if "did you mean" in hint else ""


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, Mapping) else repr(value)


def _is_pydantics(part: object) -> bool:
    """Whether part of a location is pydantic's own: the member of a union, or a map's key."""
    return part in {"[key]", "bool", "int", "float", "str", "function-before[_socket(), Socket]"}
