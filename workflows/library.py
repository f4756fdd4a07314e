"""All workflows of a folder, by name. A new workflow is a new subfolder; nothing else changes."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflows.errors import WorkflowInvalid, WorkflowNotFound
from workflows.template import Workflow

GRAPH_FILE = "graph.json"
WORKFLOW_FILE = "workflow.toml"


class Library(Mapping[str, Workflow]):
    """The workflows of a folder; an unknown name raises `WorkflowNotFound`, not `KeyError`."""

    def __init__(self, workflows: Mapping[str, Workflow]) -> None:
        self._workflows = dict(workflows)

    def __getitem__(self, name: str) -> Workflow:
        try:
            return self._workflows[name]
        except KeyError:
            raise WorkflowNotFound(name, tuple(self._workflows)) from None

    def variant(self, name: str, brought: str | None) -> Workflow:
        """The workflow of that name, or the one that takes its place for what a job brings.

        Raises:
            WorkflowNotFound: there is none of that name.
        """
        workflow = self[name]
        other = workflow.variants.get(brought) if brought else None
        return self[other] if other else workflow

    def __contains__(self, name: object) -> bool:
        return name in self._workflows

    def __iter__(self) -> Iterator[str]:
        return iter(self._workflows)

    def __len__(self) -> int:
        return len(self._workflows)


def load_library(folder: Path) -> Library:
    """Read every subfolder that has a `workflow.toml`.

    Raises:
        WorkflowInvalid: naming the folder and what is wrong; a start with half the workflows
            would only be noticed by a customer.
    """
    found = sorted(path.parent for path in folder.glob(f"*/{WORKFLOW_FILE}"))
    library = Library({path.name: load(path) for path in found})
    for workflow in library.values():
        for role, variant in workflow.variants.items():
            if variant not in library:
                raise WorkflowInvalid(workflow.name, f"variant {variant!r} for {role} is not there")
    return library


def load(folder: Path) -> Workflow:
    """Read one workflow folder. Raises `WorkflowInvalid`."""
    name = folder.name
    try:
        graph_bytes = (folder / GRAPH_FILE).read_bytes()
        toml_bytes = (folder / WORKFLOW_FILE).read_bytes()
        graph = _graph(name, json.loads(graph_bytes))
        declared = tomllib.loads(toml_bytes.decode())
        digest = hashlib.sha256(graph_bytes + b"\0" + toml_bytes).hexdigest()
        return Workflow.model_validate(
            {**declared, "name": name, "graph": graph, "digest": f"sha256:{digest}"}
        )
    except OSError as error:
        raise WorkflowInvalid(name, f"{error.strerror}: {Path(error.filename).name}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or WORKFLOW_FILE
        raise WorkflowInvalid(name, f"{where}: {fault['msg']}") from error
    except ValueError as error:  # JSON, TOML and UTF-8 errors are all ValueErrors
        raise WorkflowInvalid(name, str(error)) from error


def _graph(name: str, raw: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(raw, dict) or "nodes" in raw:
        raise WorkflowInvalid(name, "graph.json must be ComfyUI's 'Export (API)', not 'Export'")
    for node, spec in raw.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("inputs"), dict):
            raise WorkflowInvalid(name, f"node {node!r} of graph.json has no inputs")
        if not isinstance(spec.get("class_type"), str):
            raise WorkflowInvalid(name, f"node {node!r} of graph.json has no class_type")
    return raw
