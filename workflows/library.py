"""All workflows of a folder, by name. A new workflow is a new subfolder; nothing else changes."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from workflows.errors import WorkflowInvalid, WorkflowNotFound
from workflows.soundness import faults
from workflows.template import Workflow
from workflows.wording import nearest, sentence

GRAPH_FILE: Final = "graph.json"
WORKFLOW_FILE: Final = "workflow.toml"
FILES_FOLDER: Final = "files"
_BOM: Final = "utf-8-sig"  # Windows editors put a byte order mark in front


class Library(Mapping[str, Workflow]):
    """The workflows of a folder; an unknown name raises `WorkflowNotFound`, not `KeyError`.

    Attributes:
        broken: folder -> why it cannot be used; asking for one of them raises that.
    """

    def __init__(
        self,
        workflows: Mapping[str, Workflow],
        broken: Mapping[str, WorkflowInvalid] = MappingProxyType({}),
    ) -> None:
        self._workflows = dict(workflows)
        self.broken = dict(broken)

    def __getitem__(self, name: str) -> Workflow:
        if name in self.broken:
            fault = self.broken[name]
            raise WorkflowInvalid(name, *fault.faults) from fault
        try:
            return self._workflows[name]
        except KeyError:
            raise WorkflowNotFound(name, tuple(self._workflows)) from None

    def variant(self, name: str, *brought: str | None) -> Workflow:
        """The workflow of that name, or the one that takes its place for what a job brings.

        Args:
            name: as the job says it.
            brought: "prompt" and the names of inputs; the first that has a variant decides, in
                the order of `workflow.toml`.

        Raises:
            WorkflowNotFound: there is none of that name.
            WorkflowInvalid: its folder cannot be used.
        """
        workflow = self[name]
        for key, other in workflow.variants.items():
            if key in brought:
                return self[other]
        return workflow

    def __contains__(self, name: object) -> bool:
        return name in self._workflows

    def __iter__(self) -> Iterator[str]:
        return iter(self._workflows)

    def __len__(self) -> int:
        return len(self._workflows)


def load_library(folder: Path) -> Library:
    """Read every subfolder that has a `workflow.toml`.

    A folder that cannot be used takes itself out and stands in `broken`; the others work.
    """
    usable: dict[str, Workflow] = {}
    broken: dict[str, WorkflowInvalid] = {}
    for path in sorted(path.parent for path in folder.glob(f"*/{WORKFLOW_FILE}")):
        try:
            usable[path.name] = load(path)
        except WorkflowInvalid as fault:
            broken[path.name] = fault
    for name, workflow in list(usable.items()):
        for key, variant in workflow.variants.items():
            if variant not in usable:
                hint = nearest(variant, usable)
                told = f"workflow.toml, [variants]: {key}: there is no workflow {variant!r}{hint}"
                broken[name] = WorkflowInvalid(name, told)
                usable.pop(name, None)
    return Library(usable, broken)


def load(folder: Path) -> Workflow:
    """Read one workflow folder. Raises `WorkflowInvalid` with everything that is wrong."""
    name = folder.name
    try:
        graph_bytes = (folder / GRAPH_FILE).read_bytes()
        toml_bytes = (folder / WORKFLOW_FILE).read_bytes()
        graph = parse_graph(name, graph_bytes)
        declared = _declared(name, toml_bytes)
        digest = hashlib.sha256(graph_bytes + b"\0" + toml_bytes)
        files = _files(folder / FILES_FOLDER)
        for path in files.values():
            digest.update(b"\0" + path.read_bytes())
        workflow = Workflow.model_validate(
            {
                **declared,
                "name": name,
                "graph": graph,
                "digest": f"sha256:{digest.hexdigest()}",
                "files": files,
            }
        )
    except OSError as error:
        raise WorkflowInvalid(name, f"{error.strerror}: {Path(error.filename).name}") from error
    except ValidationError as error:
        raise WorkflowInvalid(name, *map(sentence, error.errors(include_url=False))) from error
    found = faults(workflow)
    if found:
        raise WorkflowInvalid(name, *found)
    return workflow


def _declared(name: str, body: bytes) -> dict[str, Any]:
    try:
        declared = tomllib.loads(body.decode(_BOM))
    except ValueError as error:  # UTF-8's and TOML's errors are both
        raise WorkflowInvalid(name, f"workflow.toml: {error}") from error
    for reserved in ("name", "digest", "graph", "files"):
        if reserved in declared:
            raise WorkflowInvalid(name, f"workflow.toml: {reserved} is not a key here")
    return declared


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def parse_graph(name: str, body: bytes) -> dict[str, dict[str, Any]]:
    """A graph as ComfyUI exports it for the API.

    Raises:
        WorkflowInvalid: it is something else; says what, where that can be told.
    """
    try:
        raw = json.loads(body.decode(_BOM))
    except ValueError as error:  # UTF-8's and JSON's errors are both
        raise WorkflowInvalid(name, f"graph.json: {error}") from error
    if not isinstance(raw, dict) or "nodes" in raw:
        raise WorkflowInvalid(name, "graph.json must be ComfyUI's 'Export (API)', not 'Export'")
    for wrapper in ("input", "prompt", "workflow"):
        if isinstance(raw.get(wrapper), dict) and "class_type" not in raw[wrapper]:
            raise WorkflowInvalid(
                name,
                f"graph.json is a request that holds the graph under {wrapper!r}; keep the graph "
                "alone",
            )
    for node, spec in raw.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("inputs"), dict):
            raise WorkflowInvalid(name, f"node {node!r} of graph.json has no inputs")
        if not isinstance(spec.get("class_type"), str):
            raise WorkflowInvalid(name, f"node {node!r} of graph.json has no class_type")
    return raw
