"""sd-scripts' command line, built from the pinned list of its parser's options."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

OPTIONS: Final = Path(__file__).with_name("options.json")


def _int_or_float(text: str) -> int | float:
    """A count from 1 on, a share below, a percentage with its sign."""
    if text.endswith("%"):
        return float(text[:-1]) / 100
    value = float(text)
    return int(text) if value >= 1 else value


_TYPES: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "int": int,
    "float": float,
    "int_or_float": _int_or_float,
    "Path": Path,
}


def options_of(script: str) -> list[dict[str, Any]]:
    """Every option of a script's parser. KeyError: it is none of sd-scripts' that train LoRAs."""
    document = json.loads(OPTIONS.read_text(encoding="utf-8"))
    return [*document["common"], *document["scripts"][script]]


def parser(script: str = "sdxl_train_network.py") -> argparse.ArgumentParser:
    """The parser: the same names, number of values, types and choices as the real one."""
    built = argparse.ArgumentParser(prog=script)
    for option in options_of(script):
        if option["takes"] == "flag":
            built.add_argument(*option["names"], action="store_true")
            continue
        built.add_argument(
            *option["names"],
            type=_TYPES[option.get("type", "str")],
            nargs=option.get("nargs"),
            choices=option.get("choices"),
            required=option.get("required", False),
        )
    return built
