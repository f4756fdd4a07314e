"""Running a bound graph: tried twice where that can help, the engine restarted where needed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.comfyui.client import Execution, OutputFile
from worker.errors import (
    EngineCrashed,
    EngineUnavailable,
    ExecutionFailed,
    OutOfMemory,
    WorkerError,
)
from worker.generation.delivery import Delivery, Prepare
from worker.generation.stages import UPLOADING, Stages
from worker.resources import JobContext, Resources
from workflows.binding import Bound

log = logging.getLogger(__name__)

ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one try needs: a graph with names of its own, since cached nodes write no files."""

    bound: Bound
    run_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run, and what becomes of it.

    Attributes:
        attempt: makes the graph: of try 1 given None, of try 2 given what ended try 1.
        conclude: called when all outputs are reported and on their way; makes the job's result,
            and waits for the delivery.
        folder: key below which outputs go.
        prepare: checks and finishes a produced file.
        timeout_s: seconds from the prompt's own start.
    """

    attempt: Callable[[WorkerError | None], Attempt]
    conclude: Callable[[Delivery], dict[str, Any]]
    folder: str
    prepare: Prepare
    timeout_s: float


def execute(order: Order, resources: Resources, context: JobContext) -> dict[str, Any]:
    """Run, deliver every declared output, and clean up; a crash or an OOM is tried once more.

    Raises:
        WorkflowRejected, ModelMissing, ExecutionFailed, OutOfMemory, EngineCrashed,
        EngineUnavailable, TimedOut, Cancelled, StoreError.
    """
    failure: WorkerError | None = None
    for number in range(1, ATTEMPTS + 1):
        current = order.attempt(failure)
        try:
            return _run_once(order, current, resources, context)
        except (EngineCrashed, EngineUnavailable, OutOfMemory) as error:
            failure = error
            log.warning("attempt failed", extra={"attempt": number, "code": error.code})
            if number < ATTEMPTS:
                _recover(error, resources, context)
    raise failure or ExecutionFailed("The job was not tried.")


def _recover(error: WorkerError, resources: Resources, context: JobContext) -> None:
    if isinstance(error, OutOfMemory):
        resources.comfyui.free(unload_models=True, free_memory=True)
        return
    resources.engine.ensure_ready(context.cancel)


def _run_once(
    order: Order, attempt: Attempt, resources: Resources, context: JobContext
) -> dict[str, Any]:
    outputs = {output.node: output for output in attempt.bound.outputs}
    delivery = Delivery(resources, context, folder=order.folder, prepare=order.prepare)

    def on_files(node: str, files: tuple[OutputFile, ...]) -> None:
        if node in outputs:
            delivery.take(outputs[node], files)

    try:
        execution = resources.comfyui.run(
            attempt.bound.graph,
            timeout_s=order.timeout_s,
            cancel=context.cancel,
            on_step=Stages(attempt.bound.graph, context.progress).on_step,
            on_files=on_files,
        )
        _count(context, execution)
        delivery.check_complete(attempt.bound.outputs)
        context.progress.report("uploading", UPLOADING)
        with context.timings.phase("upload"):
            return order.conclude(delivery)
    except BaseException:
        delivery.discard()
        raise
    finally:
        resources.comfyui.delete_folder(attempt.run_id)


def _count(context: JobContext, execution: Execution) -> None:
    context.timings.add("queued", execution.queued_ms)
    context.timings.add("execution", execution.executed_ms)
