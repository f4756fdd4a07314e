"""One prompt from start to end: its nodes in order, its events, its place in history."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import av.error
from PIL import UnidentifiedImageError
from safetensors import SafetensorError

from local.comfyui.cache import Result, ResultCache, is_link, signatures
from local.comfyui.catalogue import Catalogue
from local.comfyui.events import Events, timestamp_ms
from local.comfyui.faults import crash
from local.comfyui.folders import OutsideOutputFolder
from local.comfyui.node import (
    Inputs,
    Interrupted,
    NodeFunction,
    OutOfMemoryError,
    Output,
    Run,
    Surroundings,
)
from local.comfyui.progress import Progress
from local.comfyui.prompts import Prompt
from local.comfyui.schedule import Schedule
from local.comfyui.inputs import expand

Data = dict[str, Any]

# What a node may raise; ComfyUI reports it as the prompt's end and goes on with the next prompt.
_NODE_FAILURES: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    OutsideOutputFolder,
    RuntimeError,
    SafetensorError,
    TypeError,
    UnidentifiedImageError,
    ValueError,
    av.error.FFmpegError,
)
_OUT_OF_MEMORY: Final = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of"
    " which 1.02 GiB is free."
)
_OUT_OF_MEMORY_TIPS: Final = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you"
    " might have accidentally set the batch_size to a large number."
)


class Engine:
    """What all prompts of one server share."""

    def __init__(
        self,
        catalogue: Catalogue,
        nodes: Mapping[str, NodeFunction],
        fingerprint: Callable[[str, Inputs], Any],
        around: Surroundings,
        events: Events,
    ) -> None:
        self.catalogue = catalogue
        self.nodes = nodes
        self.fingerprint = fingerprint
        self.around = around
        self.events = events
        self.cache = ResultCache()


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
        self._prompt = prompt
        self._interrupted = interrupted
        self._hang = hang
        self._messages: list[tuple[str, Data]] = []
        self._progress = Progress(engine.events, prompt)
        self._results: dict[str, Result] = {}
        self._reported: dict[str, Data] = {}
        self._executed: list[str] = []
        graph, cache = prompt.graph, engine.cache
        self._signatures = signatures(graph, engine.catalogue, self._fingerprint)
        for node_id, signature in self._signatures.items():
            kept = cache.get(signature)
            if kept is not None:
                self._results[node_id] = kept

    def run(self) -> Data:
        """Run it; returns what history keeps: outputs, status, meta."""
        self._message("execution_start", {})
        self._moment("start")
        self._message("execution_cached", {"nodes": list(self._results)}, first="nodes")
        schedule = Schedule(
            self._prompt.graph,
            self._prompt.outputs,
            is_output=self._engine.catalogue.is_output,
            is_cached=self._results.__contains__,
        )
        success = True
        while schedule and success:
            node_id = schedule.next()
            success = self._node(node_id)
            if success:
                schedule.done(node_id)
        if success:
            self._message("execution_success", {})
            self._moment("success")
        return self._history(success=success)

    def _history(self, *, success: bool) -> Data:
        self._engine.events.running(None, None)
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
            "messages": self._messages,
        }
        return {"outputs": self._reported, "status": status, "meta": meta}

    def _node(self, node_id: str) -> bool:
        """Run one node, or report its kept result; False when the prompt ended here."""
        if node_id in self._results:
            self._report(node_id, self._results[node_id])
            self._progress.finish(node_id)
            return True
        values: dict[str, list[Any]] = {}
        try:
            self._progress.start(node_id)
            values.update(self._values(node_id))
            self._engine.events.running(self._prompt.client_id, node_id)
            self._send("executing", {"node": node_id, "display_node": node_id})
            self._keep(node_id, self._call(node_id, values))
        except Interrupted:
            self._message("execution_interrupted", self._place(node_id), everyone=True)
            return False
        except _NODE_FAILURES as error:
            self._message("execution_error", {**self._place(node_id), **self._error(error, values)})
            return False
        self._progress.finish(node_id)
        self._executed.append(node_id)
        return True

    def _keep(self, node_id: str, result: Result) -> None:
        if result.ui is not None:
            self._report(node_id, result)
            self._moment(f"executed:{self._class(node_id)}")
        self._results[node_id] = result
        self._engine.cache.put(self._signatures[node_id], result)

    def _call(self, node_id: str, values: Mapping[str, list[Any]]) -> Result:
        class_type = self._class(node_id)
        self._moment(f"executing:{class_type}")
        self._fail(class_type)
        function = self._engine.nodes[class_type]
        run = Run(
            self._engine.around,
            self._prompt.graph,
            self._prompt.extra_data.get("extra_pnginfo"),
            lambda step, steps: self._step(node_id, step, steps),
            self._check,
        )
        if self._engine.catalogue.takes_lists(class_type):
            self._check()
            return self._result(class_type, [function(run, values)])
        outputs = []
        for index in range(max(map(len, values.values()), default=1)):
            self._check()
            inputs = {name: given[min(index, len(given) - 1)] for name, given in values.items()}
            outputs.append(function(run, inputs))
        return self._result(class_type, outputs)

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

    def _values(self, node_id: str) -> dict[str, list[Any]]:
        """Inputs of a node, each as a list: constants have one value, links may bring more."""
        given = self._prompt.graph[node_id]["inputs"]
        known = expand(self._engine.catalogue.inputs(self._class(node_id)), given)
        values: dict[str, list[Any]] = {}
        for name, value in given.items():
            if is_link(value):
                values[name] = self._results[value[0]].outputs[value[1]]
            elif name in known:
                values[name] = [value]
        return values

    def _report(self, node_id: str, result: Result) -> None:
        data = {"node": node_id, "display_node": node_id, "output": result.ui}
        if result.ui is not None:
            self._reported[node_id] = result.ui
        self._send("executed", data)

    def _step(self, node_id: str, step: int, steps: int) -> None:
        self._progress.update(node_id, step, steps)
        data = {"value": step, "max": steps, "prompt_id": self._prompt.prompt_id, "node": node_id}
        self._publish("progress", data)
        self._moment(f"step:{step}")

    def _check(self) -> None:
        if self._interrupted():
            raise Interrupted

    def _error(self, error: Exception, values: Mapping[str, list[Any]]) -> Data:
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        tips = _OUT_OF_MEMORY_TIPS if isinstance(error, OutOfMemoryError) else ""
        return {
            "exception_message": f"{error}\n{tips}",
            "exception_type": f"{module}{kind.__qualname__}",
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_shown(v) for v in given] for name, given in values.items()},
            "current_outputs": list(self._prompt.graph),
        }

    def _place(self, node_id: str) -> Data:
        return {
            "node_id": node_id,
            "node_type": self._class(node_id),
            "executed": list(self._executed),
        }

    def _class(self, node_id: str) -> str:
        class_type: str = self._prompt.graph[node_id]["class_type"]
        return class_type

    def _fingerprint(self, class_type: str, inputs: Inputs) -> Any:
        return self._engine.fingerprint(class_type, inputs)

    def _message(
        self, kind: str, data: Data, *, everyone: bool = False, first: str | None = None
    ) -> None:
        """Send a message that history keeps too."""
        prompt_id = {"prompt_id": self._prompt.prompt_id}
        full = {**data, **prompt_id} if first is not None else {**prompt_id, **data}
        full["timestamp"] = timestamp_ms()
        self._messages.append((kind, full))
        if everyone or self._prompt.client_id is not None:
            self._publish(kind, full)

    def _send(self, kind: str, data: Data) -> None:
        """Send a message to the prompt's client, if it has one."""
        if self._prompt.client_id is not None:
            self._publish(kind, {**data, "prompt_id": self._prompt.prompt_id})

    def _publish(self, kind: str, data: Data) -> None:
        self._engine.events.publish(kind, data, self._prompt.client_id)

    def _moment(self, moment: str) -> None:
        """Cause what a test has asked to happen here."""
        faults = self._engine.around.faults
        if faults.due("drop_socket_at", moment) and self._prompt.client_id is not None:
            self._engine.events.drop(self._prompt.client_id)
        if faults.due("crash_at", moment):
            crash()
        if faults.due("hang_at", moment):
            self._hang()

    def _fail(self, class_type: str) -> None:
        faults = self._engine.around.faults
        if faults.due("oom_at_node", class_type):
            raise OutOfMemoryError(_OUT_OF_MEMORY)
        if faults.due("fail_at_node", class_type):
            raise RuntimeError("The stand-in was told to fail here.")


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
