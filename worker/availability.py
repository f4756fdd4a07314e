"""Which workflows can run on this ComfyUI, and what the others lack."""

import logging
import platform
import threading
from collections.abc import Mapping
from typing import Any

from worker import __version__
from worker.comfyui.client import ComfyUIClient
from worker.errors import ModelMissing, WorkflowRejected
from workflows.checking import check, class_types, unchecked
from workflows.library import Library
from workflows.problem import Problem
from workflows.template import Workflow

log = logging.getLogger(__name__)


class Availability:
    """Every workflow held against the running ComfyUI's node specs.

    Checked at start; a workflow found lacking is checked again when a job asks for it, so that a
    model put on a network volume later is used without a restart.
    """

    def __init__(self, workflows: Library, comfyui: ComfyUIClient) -> None:
        self._workflows = workflows
        self._comfyui = comfyui
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._versions: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def versions(self) -> Mapping[str, str]:
        """Of this worker and of what `/system_stats` names; empty before `check_all`."""
        return self._versions

    def check_all(self) -> None:
        """Ask ComfyUI for the specs of every node class used. Raises EngineUnavailable."""
        specs = self._specs(frozenset().union(*map(class_types, self._workflows.values())))
        found = {name: check(workflow, specs) for name, workflow in self._workflows.items()}
        versions = _versions(self._comfyui.system_stats())
        with self._lock:
            self._problems = found
            self._versions = versions
        for name, workflow in self._workflows.items():
            doubts = unchecked(workflow, specs)
            if found[name]:
                log.warning("workflow lacks something", extra=_told(name, found[name]))
            if doubts:
                log.info("workflow is unchecked in part", extra=_told(name, doubts))
        for name, fault in self._workflows.broken.items():
            log.error("workflow is broken", extra={"workflow": name, "problems": fault.faults})

    def require(self, workflow: Workflow) -> None:
        """Let a job pass, or say what its workflow lacks.

        Raises:
            ModelMissing: naming the model files.
            WorkflowRejected: for missing node classes and anything else.
        """
        if not self._problems.get(workflow.name):
            return
        problems = check(workflow, self._specs(class_types(workflow)))
        with self._lock:
            self._problems = {**self._problems, workflow.name: problems}
        if problems:
            raise _refusal(workflow, problems)

    def lacking(self) -> dict[str, list[str]]:
        """Workflow -> sentences; what `health` reports."""
        broken = {name: list(fault.faults) for name, fault in self._workflows.broken.items()}
        found = {
            name: [problem.text for problem in problems]
            for name, problems in self._problems.items()
            if problems
        }
        return found | broken

    def _specs(self, names: frozenset[str]) -> dict[str, Mapping[str, Any]]:
        specs: dict[str, Mapping[str, Any]] = {}
        for name in sorted(names):
            specs |= self._comfyui.object_info(name)
        return specs


def _told(name: str, problems: tuple[Problem, ...]) -> dict[str, Any]:
    return {"workflow": name, "problems": [problem.text for problem in problems]}


def _versions(stats: Mapping[str, Any]) -> dict[str, str]:
    system = stats.get("system", {})
    return {
        "worker": __version__,
        "comfyui": str(system.get("comfyui_version", "unknown")),
        "pytorch": str(system.get("pytorch_version", "unknown")),
        "python": platform.python_version(),
    }


def _refusal(workflow: Workflow, problems: tuple[Problem, ...]) -> ModelMissing | WorkflowRejected:
    models = [problem.subject for problem in problems if problem.kind == "model_missing"]
    details = {"workflow": workflow.name, "problems": [problem.text for problem in problems]}
    if models:
        return ModelMissing(
            f"Workflow {workflow.name!r} needs models that this worker does not have: "
            f"{', '.join(models)}.",
            field="workflow",
            details={**details, "models": models},
        )
    return WorkflowRejected(
        f"Workflow {workflow.name!r} does not fit this ComfyUI: {problems[0].text}.",
        field="workflow",
        details=details,
    )
