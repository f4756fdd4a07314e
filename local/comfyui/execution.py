"""One prompt from start to end: its nodes in order, what they give, its place in history."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.comfyui.cache import Result, ResultCache, is_link, signatures
from local.comfyui.catalogue import Catalogue
from local.comfyui.events import Events
from local.comfyui.failure import NODE_FAILURES, described, raise_due
from local.comfyui.faults import crash
from local.comfyui.inputs import expand
from local.comfyui.node import Inputs, Interrupted, NodeFunction, Output, Run, ServerContext
from local.comfyui.prompt_events import PromptEvents
from local.comfyui.prompts import Prompt
from local.comfyui.schedule import Schedule

Values = dict[str, list[Any]]


@dataclass(frozen=True)
class Engine:
    """What all prompts of one server share."""

    catalogue: Catalogue
    nodes: Mapping[str, NodeFunction]
    fingerprint: Callable[[str, Inputs], Any]
    context: ServerContext
    events: Events
    cache: ResultCache = field(default_factory=ResultCache)


class Execution:
    """A prompt while it runs.

    Args:
        engine: the server's parts.
        prompt: what to run.
        interrupted: says, once per request, that it is to stop.
        hang: never comes back; what the fault `hang_at` calls.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        interrupted: Callable[[], bool],
        hang: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._graph = prompt.graph
        self._prompt = prompt
        self._interrupted = interrupted
        self._hang = hang
        self._prompt_events = PromptEvents(engine.events, prompt)
        self._signatures = signatures(prompt.graph, engine.catalogue, engine.fingerprint)
        self._results: dict[str, Result] = {}
        self._reported: dict[str, dict[str, Any]] = {}
        self._executed: list[str] = []

    def run(self) -> dict[str, Any]:
        """Run it; returns what history keeps: outputs, status, meta."""
        self._prompt_events.started()
        self._moment("start")
        self._recall()
        self._prompt_events.cached(list(self._results))
        success = self._run_nodes()
        if success:
            self._prompt_events.succeeded()
            self._moment("success")
        self._prompt_events.ended()
        return self._history(success=success)

    def _recall(self) -> None:
        for node_id, signature in self._signatures.items():
            kept = self._engine.cache.get(signature)
            if kept is not None:
                self._results[node_id] = kept

    def _run_nodes(self) -> bool:
        schedule = Schedule(
            self._graph,
            self._prompt.outputs,
            is_output=self._engine.catalogue.is_output,
            is_cached=self._results.__contains__,
        )
        while schedule:
            node_id = schedule.next()
            if not self._run_node(node_id):
                return False
            schedule.done(node_id)
            self._engine.cache.release(self._signatures.values())
        return True

    def _run_node(self, node_id: str) -> bool:
        """Run one node, or report its kept result; False when the prompt ended here."""
        if node_id in self._results:
            self._report(node_id, self._results[node_id])
            self._prompt_events.node_finished(node_id)
            return True
        values: Values = {}
        place = {"node_id": node_id, "node_type": self._class(node_id)}
        try:
            self._prompt_events.node_started(node_id)
            values.update(self._values(node_id))
            self._keep(node_id, self._call(node_id, values))
        except Interrupted:
            self._prompt_events.interrupted({**place, "executed": list(self._executed)})
            return False
        except NODE_FAILURES as error:
            said = {**described(error, values), "current_outputs": list(self._graph)}
            self._prompt_events.failed({**place, "executed": list(self._executed)}, said)
            return False
        self._prompt_events.node_finished(node_id)
        self._executed.append(node_id)
        return True

    def _call(self, node_id: str, values: Values) -> Result:
        """Call a node's function: once with whole lists, or once per element."""
        class_type = self._class(node_id)
        self._moment(f"executing:{class_type}")
        raise_due(self._engine.context.faults, class_type)
        run = Run(
            self._engine.context,
            self._graph,
            self._prompt.extra_data.get("extra_pnginfo"),
            lambda step, steps: self._step(node_id, step, steps),
            self._check,
        )
        function = self._engine.nodes[class_type]
        outputs = []
        for inputs in self._calls(class_type, values):
            self._check()
            outputs.append(function(run, inputs))
        return self._result(class_type, outputs)

    def _calls(self, class_type: str, values: Values) -> list[Inputs]:
        """The inputs of each call; shorter lists go on with their last element."""
        if self._engine.catalogue.takes_lists(class_type):
            return [values]
        return [
            {name: given[min(index, len(given) - 1)] for name, given in values.items()}
            for index in range(max(map(len, values.values()), default=1))
        ]

    def _result(self, class_type: str, outputs: list[Output]) -> Result:
        sockets: list[list[Any]] = []
        for number, is_list in enumerate(self._engine.catalogue.gives_lists(class_type)):
            found = [output.values[number] for output in outputs]
            sockets.append([value for values in found for value in values] if is_list else found)
        reports = [output.ui for output in outputs if output.ui is not None]
        if not reports:
            return Result(sockets)
        ui = {key: [item for report in reports for item in report[key]] for key in reports[0]}
        return Result(sockets, ui)

    def _values(self, node_id: str) -> Values:
        """Inputs of a node, each as a list: constants have one value, links may bring more."""
        given = self._graph[node_id]["inputs"]
        known = expand(self._engine.catalogue.inputs(self._class(node_id)), given)
        values: Values = {}
        for name, value in given.items():
            if is_link(value):
                values[name] = self._results[value[0]].outputs[value[1]]
            elif name in known:
                values[name] = [value]
        from_server = {
            "PROMPT": self._graph,
            "EXTRA_PNGINFO": self._prompt.extra_data.get("extra_pnginfo"),
        }
        hidden = self._engine.catalogue.hidden(self._class(node_id))
        return values | {name: [from_server.get(kind)] for name, kind in hidden.items()}

    def _keep(self, node_id: str, result: Result) -> None:
        if result.ui is not None:
            self._report(node_id, result)
            self._moment(f"executed:{self._class(node_id)}")
        self._results[node_id] = result
        self._engine.cache.put(self._signatures[node_id], result)

    def _report(self, node_id: str, result: Result) -> None:
        if result.ui is not None:
            self._reported[node_id] = result.ui
        self._prompt_events.node_reported(node_id, result.ui)

    def _step(self, node_id: str, step: int, steps: int) -> None:
        self._prompt_events.node_progressed(node_id, step, steps)
        self._moment(f"step:{step}")

    def _check(self) -> None:
        if self._interrupted():
            raise Interrupted

    def _class(self, node_id: str) -> str:
        class_type: str = self._graph[node_id]["class_type"]
        return class_type

    def _history(self, *, success: bool) -> dict[str, Any]:
        meta = {
            node_id: {
                "node_id": node_id,
                "display_node": node_id,
                "parent_node": None,
                "real_node_id": node_id,
            }
            for node_id in self._reported
        }
        status = {
            "status_str": "success" if success else "error",
            "completed": success,
            "messages": self._prompt_events.kept,
        }
        return {"outputs": self._reported, "status": status, "meta": meta}

    def _moment(self, moment: str) -> None:
        """Cause what a test has asked to happen here."""
        faults = self._engine.context.faults
        if faults.due("drop_socket_at", moment):
            self._prompt_events.drop_client()
        if faults.due("crash_at", moment):
            crash()
        if faults.due("hang_at", moment):
            self._hang()
