"""Measure this card, or pack what it takes to measure another.

    python -m benchmarks.gpu --comfyui DIR [--kohya DIR] [--checkpoint FILE | --random]
    python -m benchmarks.gpu --tiny                  # small, on the stand-ins: is the tool whole?
    python -m benchmarks.gpu pack OUT --comfyui DIR  # a folder to carry; `python OUT/run.py` there

Figures are written after every part, so that a run that is cut off leaves what it has.
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu import characters, pictures, queued, table, trainings
from benchmarks.gpu.bench import Bench, JobFailed, Places, load, opened
from benchmarks.gpu.memory import card
from benchmarks.gpu.pack import pack
from benchmarks.gpu.sizes import FULL, TINY
from errors import CodedError
from worker.comfyui.options import start_arguments

PARTS: Final[Mapping[str, Callable[[Bench], dict[str, Any]]]] = {
    "pictures": pictures.measure,
    "characters": characters.measure,
    "queue": queued.measure,
    "training": trainings.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure or pack; 1 when a part could not be measured, 2 when misused."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["pack"]:
        return pack(given[1:])
    words = parser().parse_args(given)
    if words.comfyui is None and not words.tiny:
        sys.stderr.write("--comfyui names the folder of ComfyUI; --tiny does without.\n")
        return 2
    document = measure(words)
    failed = [name for name, figures in document["figures"].items() if "failed" in figures]
    print(table.markdown(document))
    return 1 if failed else 0


def measure(words: argparse.Namespace) -> dict[str, Any]:
    """Every part that was asked for, one after another."""
    words.out.mkdir(parents=True, exist_ok=True)
    words.work.mkdir(parents=True, exist_ok=True)
    places = places_of(words)
    document = description(places) | {"figures": {}}
    with opened(places, TINY if words.tiny else FULL) as bench:
        for name in words.only or PARTS:
            document["figures"][name] = measured(name, bench)
            document["prices"] = table.prices(document["figures"], words.price_per_second)
            write(words.out, document)
    return document


def measured(name: str, bench: Bench) -> dict[str, Any]:
    """One part; what keeps it from being measured stands in its place, and the others go on."""
    print(f"measuring {name} …", file=sys.stderr, flush=True)
    try:
        return {**PARTS[name](bench), "load": load()}
    except (JobFailed, CodedError, OSError, RuntimeError) as error:
        return {"failed": f"{type(error).__name__}: {error}", "load": load()}


def description(places: Places) -> dict[str, Any]:
    """What was measured: card, ComfyUI, weights, and whether anything was only pretended."""
    found = card()
    options = (
        [*start_arguments(places.comfyui), *places.comfyui_args.split()] if places.comfyui else []
    )
    return {
        "card": asdict(found) if found else None,
        "comfyui": f"ComfyUI {version(places.comfyui)}",
        "comfyui_options": options,
        "real_weights": places.sdxl is not None,
        "pretends": places.pretends,
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    }


def version(comfyui: Path | None) -> str:
    """As its own file has it."""
    file = comfyui / "comfyui_version.py" if comfyui else None
    if file is None or not file.is_file():
        return "stand-in"
    return file.read_text().partition('"')[2].partition('"')[0]


def write(out: Path, document: Mapping[str, Any]) -> None:
    """`figures.json` and `figures.md`, whole or as they were."""
    for name, text in (
        ("figures.json", json.dumps(document, indent=2)),
        ("figures.md", table.markdown(document)),
    ):
        partial = out / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, out / name)  # noqa: PTH105 - a whole file or the one before


def places_of(words: argparse.Namespace) -> Places:
    """Where everything is, by the command line."""
    return Places(
        work=words.work.resolve(),
        comfyui=words.comfyui and words.comfyui.resolve(),
        comfyui_python=words.comfyui_python,
        comfyui_args=words.comfyui_args,
        kohya=words.kohya and words.kohya.resolve(),
        kohya_python=words.kohya_python,
        tokenizers=words.tokenizers and words.tokenizers.resolve(),
        sdxl=words.checkpoint,
        svd=words.svd,
        small=words.tiny,
    )


def parser() -> argparse.ArgumentParser:
    """The command line of a measurement."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--comfyui", type=Path, metavar="DIR", help="ComfyUI's folder")
    made.add_argument("--comfyui-python", metavar="FILE", help="else its .venv's, or ours")
    made.add_argument("--comfyui-args", default="", metavar="ARGS", help="such as --cpu")
    made.add_argument("--kohya", type=Path, metavar="DIR", help="sd-scripts' folder")
    made.add_argument("--kohya-python", metavar="FILE", help="else its .venv's, or ours")
    made.add_argument(
        "--tokenizers", type=Path, metavar="DIR", help="both CLIP tokenizers; else ComfyUI's own"
    )
    weights = made.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="an SDXL checkpoint")
    weights.add_argument(
        "--random", action="store_true", help="random weights of the true shapes (the default)"
    )
    made.add_argument("--svd", type=Path, metavar="FILE", help="an SVD checkpoint; else random")
    made.add_argument("--tiny", action="store_true", help="small sizes and weights, for a CPU")
    made.add_argument("--only", nargs="+", choices=PARTS, help="some parts, in this order")
    made.add_argument("--price-per-second", type=float, metavar="USD", help="of the card")
    made.add_argument("--work", type=Path, default=Path("out/gpu-work"), help="needs up to 40 GB")
    made.add_argument("--out", type=Path, default=Path("out/gpu"), help="where the figures go")
    return made


if __name__ == "__main__":
    sys.exit(main())
