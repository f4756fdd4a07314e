"""What ComfyUI checks of one input of a node: its type, range and choices, in ComfyUI's words."""

from collections.abc import Mapping
from typing import Any, Final

Report = dict[str, Any]
Spec = tuple[Any, Mapping[str, Any]]

# What converting a value or following a link may raise; ComfyUI reports these as answers.
FAILURES: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

_LONGEST_LIST: Final = 20  # longer lists of choices are only counted in the error
_CONVERSIONS: Final[Mapping[str, type]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}
_DYNAMIC: Final = "COMFY_DYNAMICCOMBO_V3"


def problem(kind: str, message: str, details: str = "", **info: Any) -> Report:
    """One error as ComfyUI words it; `info` goes into `extra_info`."""
    return {"type": kind, "message": message, "details": details, "extra_info": info}


def expand(
    specs: Mapping[str, Mapping[str, list[Any]]], inputs: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[bool, Spec]]:
    """Every input that counts: name -> (required, (type, constraints)).

    A dynamic choice brings the inputs of the option that is chosen, as `choice.input`; without a
    known choice it does not count at all.
    """
    found: dict[str, tuple[bool, Spec]] = {}
    for category, named in specs.items():
        for plain, spec in named.items():
            name = f"{prefix}{plain}"
            constraints = spec[1] if len(spec) > 1 else {}
            if spec[0] == _DYNAMIC:
                chosen = [o for o in constraints["options"] if o["key"] == inputs.get(name)]
                if not chosen:
                    continue
                found.update(expand(chosen[0]["inputs"], inputs, f"{name}."))
            found[name] = (category == "required", (spec[0], constraints))
    return found


def missing(name: str) -> Report:
    """A required input that is not there."""
    shown = name.rsplit(".", maxsplit=1)[-1]
    message = "Required input is missing"
    return problem("required_input_missing", message, shown, input_name=name)


def check_constant(
    inputs: dict[str, Any], name: str, spec: Spec, *, in_range: bool
) -> Report | None:
    """Convert an input's value in place and check it; None when it is good.

    Args:
        inputs: the node's inputs; `name` is one of them and not a link.
        name: the input.
        spec: its type and constraints.
        in_range: False where the node checks range and choices itself.
    """
    value = inputs[name]
    if isinstance(value, dict) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    kind = spec[0]
    try:
        if isinstance(kind, str) and kind in _CONVERSIONS:
            value = inputs[name] = _CONVERSIONS[kind](value)
    except FAILURES as error:
        return problem(
            "invalid_input_type",
            f"Failed to convert an input value to a {kind} value",
            f"{name}, {value}, {error}",
            input_name=name,
            input_config=spec,
            received_value=value,
            exception_message=str(error),
        )
    if not in_range:
        return None
    return _out_of_range(name, value, spec) or _not_a_choice(name, value, spec)


def accepts(wanted: Any, received: Any) -> bool:
    """Whether an output of one type may be linked to an input of another."""
    if wanted == received or "*" in (wanted, received) or wanted == "COMFY_MATCHTYPE_V3":
        return True
    if isinstance(received, list):
        return bool(wanted == "COMBO")
    if not isinstance(wanted, str):
        return False
    types = {kind.strip() for kind in wanted.split(",")}
    return bool(types & {kind.strip() for kind in received.split(",")})


def _out_of_range(name: str, value: Any, spec: Spec) -> Report | None:
    info = {"input_name": name, "input_config": spec, "received_value": value}
    limits = spec[1]
    if "min" in limits and value < limits["min"]:
        message = f"Value {value} smaller than min of {limits['min']}"
        return problem("value_smaller_than_min", message, name, **info)
    if "max" in limits and value > limits["max"]:
        message = f"Value {value} bigger than max of {limits['max']}"
        return problem("value_bigger_than_max", message, name, **info)
    return None


def _not_a_choice(name: str, value: Any, spec: Spec) -> Report | None:
    kind, constraints = spec
    if not isinstance(kind, list) and kind != "COMBO":
        return None
    choices = kind if isinstance(kind, list) else constraints.get("options", [])
    if value in choices:
        return None
    many = len(choices) > _LONGEST_LIST
    shown = f"(list of length {len(choices)})" if many else str(choices)
    return problem(
        "value_not_in_list",
        "Value not in list",
        f"{name}: {value!r} not in {shown}",
        input_name=name,
        input_config=None if many else spec,
        received_value=value,
    )
