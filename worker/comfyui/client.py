"""ComfyUI for the branches: run a graph, put files in, get files out."""

import errno
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from worker.cancel import CancelToken
from worker.comfyui.engine import Engine
from worker.comfyui.events import (
    Execution,
    Graph,
    Listeners,
    OutputFile,
    PromptRecord,
    Step,
)
from worker.comfyui.failures import refusal
from worker.comfyui.http import ComfyUIHTTP, PromptRefused, missing_output
from worker.comfyui.prompt import Hang, Limits, PromptRun
from worker.errors import DiskFull, EngineCrashed, InvalidInput

__all__ = ["ComfyUIClient", "Execution", "OutputFile", "Step"]


class ComfyUIClient:
    """One ComfyUI server; may be used from any thread, one prompt per thread.

    Whoever runs a graph has nothing to remember: `run` starts on a ComfyUI that is ready, and one
    that died or hangs is replaced before the next graph, whether that is a job's, a preview's, the
    warm-up's or the trainer's.

    Args:
        engine: the server; where its folders are on our disk, files are used in place.
        queue_timeout_s: how long a prompt may wait in its queue.
        stop_timeout_s: how long an interrupt may take before the server counts as hung.
    """

    def __init__(
        self, engine: Engine, *, queue_timeout_s: float = 3600.0, stop_timeout_s: float = 5.0
    ) -> None:
        self._engine = engine
        self._http = ComfyUIHTTP(engine.url)
        outputs = engine.output_directory
        self._outputs = OutputFolder(outputs) if outputs else None
        self._inputs = engine.input_directory
        self._queue_timeout_s = queue_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._lock = threading.Lock()
        self._prompts = 0  # of ours that the server has, or is about to have

    def close(self) -> None:
        """Close the connections; prompts go on."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(
        self,
        graph: Graph,
        *,
        timeout_s: float,
        cancel: CancelToken,
        on_step: Callable[[Step], None],
        on_files: Callable[[str, tuple[OutputFile, ...]], None],
        on_start: Callable[[], None] | None = None,
    ) -> Execution:
        """Queue a graph and wait for its end.

        Args:
            graph: nodes by id, as ComfyUI's "Export (API)" writes them.
            timeout_s: counts from the prompt's own start, not from its submission.
            cancel: noticed within 0.2 s; ends the wait, and the prompt between two steps.
            on_step: told when a node begins and after each sampling step.
            on_files: told once per node, as soon as its files are whole.
            on_start: told when the prompt leaves the queue.

        Raises:
            WorkflowRejected, ModelMissing: ComfyUI refuses the graph.
            ExecutionFailed, OutOfMemory, DiskFull: a node failed.
            EngineUnavailable: ComfyUI is not ready, or could not be asked; nothing was queued.
            EngineCrashed: it ended, hung, or was restarted, while it had the prompt.
            Cancelled, TimedOut: the prompt was stopped.
        """
        cancel.check()
        self._engine.ensure_ready(cancel)
        record = PromptRecord(graph, Listeners(on_step, on_files, on_start))
        limits = Limits(timeout_s, self._queue_timeout_s, self._stop_timeout_s)
        run = PromptRun(
            *(self._http, self._engine, record),
            limits=limits,
            cancel=cancel,
            busy=lambda: self._prompts > 0,
        )
        with ExitStack() as counted:
            try:
                with run:
                    counted.enter_context(self._counted())
                    self._submit(run, graph)
                    return run.finish()
            except Hang as hang:
                # The one place that handles it: the next `run` waits for the ComfyUI begun here.
                self._engine.replace(hang.generation)
                raise hang.outcome from hang
            except EngineCrashed:
                if not self._engine.alive:
                    self._engine.replace(self._engine.generation)
                raise

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._prompts += 1
        try:
            yield
        finally:
            with self._lock:
                self._prompts -= 1

    def _submit(self, run: PromptRun, graph: Graph) -> None:
        try:
            node_errors = run.submit()
        except PromptRefused as refused:
            raise refusal(refused.body, graph, self._choices) from refused
        if node_errors:
            # Accepted without the outputs that are at fault: all of them, or none.
            raise refusal({"node_errors": node_errors}, graph, self._choices)

    def system_stats(self) -> Mapping[str, Any]:
        """Versions, arguments, devices and memory of the server."""
        return self._http.system_stats()

    def object_info(self, class_name: str) -> Mapping[str, Any]:
        """`{class_name: specification}`; empty when the server has no such node type."""
        return self._http.object_info(class_name)

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Have the models unloaded and the caches given up, before the next prompt runs."""
        self._http.free(unload_models=unload_models, free_memory=free_memory)

    def place_input(self, data: bytes | Path, name: str) -> str:
        """Give the server an input file; returns the value for `LoadImage.image` and the like.

        Args:
            data: the content, or the file that has it; it is copied, since 0.28 refuses links
                that lead out of the input folder.
            name: a plain file name that no other job uses; an existing file is replaced.

        Raises:
            DiskFull: no room in the input folder.
        """
        if not name or Path(name).name != name or name.startswith("."):
            raise InvalidInput("The name of an input file must be a plain file name.")
        if self._inputs is not None:
            _write_whole(data, self._inputs / name)
            return name
        if isinstance(data, bytes):
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.seek(0)
                return self._http.upload(file, name)
        with data.open("rb") as file:
            return self._http.upload(file, name)

    def remove_input(self, name: str) -> None:
        """Remove what `place_input` put there, where the folder is ours."""
        if self._inputs is not None:
            (self._inputs / Path(name).name).unlink(missing_ok=True)

    @contextmanager
    def opened(self, file: OutputFile) -> Iterator[Path]:
        """The file on our disk: where ComfyUI wrote it, or a copy that goes with the context.

        Raises:
            ExecutionFailed: the file is not there, or lies outside ComfyUI's folder.
            DiskFull: no room for the copy.
        """
        if self._outputs is not None and file.folder_type == "output":
            yield self._outputs.path(file)
            return
        with tempfile.TemporaryDirectory(prefix="output-") as folder:
            path = Path(folder) / f"file{Path(file.filename).suffix}"
            with self._http.view(file) as pieces, _disk_full_is_ours(), path.open("wb") as copy:
                copy.writelines(pieces)
            yield path

    def delete_folder(self, subfolder: str) -> None:
        """Remove a folder of outputs with all in it, where it is ours; never fails.

        Call it when the prompt is over: a node that is about to write needs the folder.
        """
        if self._outputs is not None:
            self._outputs.delete_folder(subfolder)

    def _choices(self, node_type: str, name: str) -> Sequence[object]:
        """What an input of a node type allows, for inputs that are a list of choices."""
        inputs = self._http.object_info(node_type).get(node_type, {}).get("input", {})
        for part in ("required", "optional"):
            kind, *rest = inputs.get(part, {}).get(name) or [None]
            options = kind if isinstance(kind, list) else (rest[0] if rest else {}).get("options")
            if isinstance(options, list):
                return options
        return ()


class OutputFolder:
    """ComfyUI's output folder, where it is on our disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def path(self, file: OutputFile) -> Path:
        """Where the file lies.

        Raises:
            ExecutionFailed: it is not there, or what the node reports leads out of the folder.
        """
        path = (self._folder / file.subfolder / file.filename).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise missing_output(file)
        return path

    def delete_folder(self, subfolder: str) -> None:
        """Remove a folder below this one, with all in it."""
        path = (self._folder / subfolder).resolve()
        if path != self._folder and path.is_relative_to(self._folder):
            shutil.rmtree(path, ignore_errors=True)


def _write_whole(data: bytes | Path, path: Path) -> None:
    """Write under a temporary name, then rename: no node ever sees half a file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with _disk_full_is_ours():
            if isinstance(data, bytes):
                partial.write_bytes(data)
            else:
                shutil.copyfile(data, partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _disk_full_is_ours() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull("The worker's disk is full.") from error
        raise
