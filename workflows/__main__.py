"""`python -m workflows`: draft a folder from an export, check one, list all.

An entry point: it alone in this package writes files and asks a running ComfyUI.
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from workflows.checking import check, class_types, unchecked
from workflows.drafting import draft, to_toml
from workflows.errors import WorkflowError, WorkflowInvalid
from workflows.library import GRAPH_FILE, WORKFLOW_FILE, load, load_library, parse_graph
from workflows.template import Workflow

_FAILED: Final = 1
_TIMEOUT_S: Final = 30.0
_HERE: Final = Path(__file__).resolve().parent
_HOW_TO_EXPORT: Final = (
    "In ComfyUI: open the workflow, menu Workflow (or the gear, 'Dev mode' in old versions), then "
    "'Export (API)'. The plain 'Export' draws the graph and does not say what the nodes get."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 (something is wrong), 2 (misused)."""
    words = _parser().parse_args(argv)
    try:
        if words.verb == "draft":
            return _draft(words.export, words.folder / words.name)
        if words.verb == "check":
            return _check(load(words.folder / words.name), words.comfyui)
        return _list(words.folder)
    except WorkflowInvalid as error:
        _say(*(f"{error.details['workflow']}: {fault}" for fault in error.faults))
        if "Export (API)" in str(error):
            _say(_HOW_TO_EXPORT)
    except WorkflowError as error:
        _say(str(error))
    except urllib.error.URLError as error:
        _say(f"ComfyUI does not answer at {words.comfyui}: {error.reason}")
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}")
    return _FAILED


def _draft(export: Path, folder: Path) -> int:
    if folder.exists():
        _say(f"{folder} is there already; choose another name or remove it.")
        return _FAILED
    body = export.read_bytes()
    found = draft(parse_graph(folder.name, body))
    folder.mkdir(parents=True)
    (folder / GRAPH_FILE).write_bytes(body)
    (folder / WORKFLOW_FILE).write_text(to_toml(found, folder.name.replace("_", " ")))
    _say(f"{folder}: {GRAPH_FILE} and {WORKFLOW_FILE} written.")
    _say(*(f"unsure: {line}" for line in found.unsure))
    load(folder)
    return 0


def _check(workflow: Workflow, comfyui: str | None) -> int:
    if comfyui is None:
        _say(f"{workflow.name}: its files agree. With --comfyui URL it is held against a server.")
        return 0
    specs = {name: spec for name in class_types(workflow) if (spec := _spec(comfyui, name))}
    problems = check(workflow, specs)
    _say(*(f"{workflow.name}: {problem.text}" for problem in problems))
    _say(*(f"{workflow.name}: unchecked: {doubt.text}" for doubt in unchecked(workflow, specs)))
    if not problems:
        _say(f"{workflow.name}: fits this ComfyUI.")
    return _FAILED if problems else 0


def _spec(comfyui: str, name: str) -> dict[str, Any] | None:
    if urllib.parse.urlsplit(comfyui).scheme not in {"http", "https"}:
        raise urllib.error.URLError("the address must begin with http:// or https://")
    url = f"{comfyui.rstrip('/')}/object_info/{urllib.parse.quote(name, safe='')}"
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 - http(s), above
        specs: dict[str, Any] = json.load(response)
    return specs.get(name)


def _list(folder: Path) -> int:
    library = load_library(folder)
    for name, workflow in library.items():
        takes = ", ".join((*workflow.roles, *workflow.inputs, *workflow.params))
        _say(f"{name}: {workflow.title} ({workflow.kind}); takes {takes or 'nothing'}")
    for name, fault in library.broken.items():
        _say(f"{name}: broken: {fault.faults[0]}")
    return _FAILED if library.broken else 0


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workflows", description=__doc__)
    parser.add_argument("--folder", type=Path, default=_HERE, help="where the workflows lie")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    drafting = verbs.add_parser("draft", help="write a folder from ComfyUI's 'Export (API)'")
    drafting.add_argument("export", type=Path)
    drafting.add_argument("name", help="of the new folder; jobs call the workflow by it")
    checking = verbs.add_parser("check", help="say what the worker's start would say")
    checking.add_argument("name")
    checking.add_argument("--comfyui", metavar="URL", help="a running ComfyUI to hold it against")
    verbs.add_parser("list", help="all workflows, and what jobs can set in them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
