"""One prompt from its submission to its end. History is truth, the socket is progress.

connected   the socket is open, nothing is queued  -> `submit`
queued      submitted; so is one whose answer was lost  -> `Started`, cancel, `queue_timeout_s`
running     socket, history or `/queue` said so  -> an ending, cancel, `timeout_s`
forgotten   in neither queue nor history  -> found again, or `EngineCrashed` after 1.5 s
silent      nobody listens at its address  -> an answer, or `Hang` after 10 s
ended       success, failure, interruption  -> all reports are in, or history has told the rest
withdrawn   left early, and no longer queued or run
hung        left early, and ComfyUI does not give it up: `Hang`, only a restart helps

While the socket has a gap (lost, opened again), what it did not say is asked of history.
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from worker.cancel import CancelToken, Deadline
from worker.comfyui.engine import Engine
from worker.comfyui.events import (
    Execution,
    Failed,
    Interrupted,
    PromptRecord,
    Started,
    Succeeded,
    parse_history,
)
from worker.comfyui.failures import failure
from worker.comfyui.http import (
    ComfyUIHTTP,
    EngineSilent,
    EngineUnreachable,
    EventStream,
    PromptRefused,
    StreamLost,
)
from worker.errors import (
    Cancelled,
    EngineCrashed,
    EngineUnavailable,
    ExecutionFailed,
    TimedOut,
)

log = logging.getLogger(__name__)

_TICK_S = 0.2  # how late a cancel is noticed at most
_SILENCE_S = 2.0  # without events, history and queue are asked this often
_AWAY_S = 0.5  # the same once the socket was lost
_SETTLING_S = 0.02  # after the end: history follows in milliseconds, up to half a second
_FORGOTTEN_S = 1.5  # in neither queue nor history for so long: it is not coming back
_UNREACHABLE_S = 10.0
_INTERRUPT_AGAIN_S = 0.5
_CONNECTS = 2  # of 5 s each, before an idle server that says nothing counts as hung


class Hang(Exception):
    """ComfyUI holds a prompt that it neither ends nor gives up: only a restart frees the GPU.

    Only for this package: `ComfyUIClient` has ComfyUI restarted and raises `outcome`.

    Args:
        outcome: what the caller is told.
        generation: the life of ComfyUI that hangs.
    """

    def __init__(self, outcome: BaseException, generation: int) -> None:
        super().__init__("ComfyUI hangs")
        self.outcome = outcome
        self.generation = generation


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a prompt may take, in seconds.

    Attributes:
        timeout_s: from its own start, whatever was queued before it.
        queue_timeout_s: in ComfyUI's queue.
        stop_timeout_s: from an interrupt until it has really stopped; then ComfyUI hangs.
    """

    timeout_s: float
    queue_timeout_s: float = 3600.0
    stop_timeout_s: float = 5.0


class PromptRun:
    """Owns a prompt in ComfyUI's queue: left early, for whatever reason, it takes it out again.

    Args:
        http: the server's endpoints.
        engine: the server: its address, and whether its process is there.
        record: gathers what happens, and tells it.
        limits: how long anything may take.
        cancel: looked at every 0.2 s.
        busy: whether the server has other prompts of ours: they judge its silence.
    """

    def __init__(
        self,
        http: ComfyUIHTTP,
        engine: Engine,
        record: PromptRecord,
        *,
        limits: Limits,
        cancel: CancelToken,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.prompt_id = str(uuid.uuid4())
        self._client_id = uuid.uuid4().hex
        self._http = http
        self._stream = EventStream(engine.url, self._client_id, self.prompt_id)
        self._record = record
        self._limits = limits
        self._cancel = cancel
        self._engine = engine
        self._busy = busy
        self._generation = engine.generation
        self._deadline = Deadline(limits.queue_timeout_s)
        self._queued = False
        self._running = False
        self._gap = False  # events may have passed while the socket was away
        self._told = False  # history has said all there is to say
        self._look_at = time.monotonic() + _SILENCE_S
        self._forgotten_since: float | None = None
        self._unreachable_since: float | None = None

    def __enter__(self) -> Self:
        """Connect. Nothing is queued yet, so a ComfyUI that is gone or hangs is just waited out."""
        silent, replaced = 0, False
        while True:
            try:
                self._stream.open()
            except StreamLost as error:
                self._check_limits()
                # Without prompts of ours there is nothing that could keep it from answering.
                silent += not self._busy()
                if silent >= _CONNECTS:
                    if replaced:
                        raise EngineSilent("ComfyUI does not answer.") from error
                    self._engine.replace(self._generation)
                    replaced = True
                if self._engine.ready:
                    self._cancel.sleep(_TICK_S)
                    continue
                self._engine.ensure_ready(self._cancel)
                self._generation, silent = self._engine.generation, 0
            else:
                return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()
        gone = isinstance(exc, EngineCrashed | Hang)
        if exc is not None and self._queued and not gone and not self._withdrawn():
            log.warning("prompt does not stop", extra={"prompt_id": self.prompt_id})
            raise Hang(exc, self._generation) from exc

    def submit(self) -> object:
        """Queue the graph; returns the `node_errors` that come with a half-accepted one.

        Raises:
            PromptRefused: ComfyUI answered 400.
            EngineUnavailable: no answer; the prompt is not queued.
        """
        self._record.submitted_at = time.monotonic()
        self._generation = self._engine.generation
        self._queued = True  # as far as we know: the answer may get lost
        try:
            return self._http.submit(self._record.graph, self.prompt_id, self._client_id)
        except PromptRefused:
            self._queued = False
            raise

    def finish(self) -> Execution:
        """Wait for the end, telling the listeners on the way.

        Raises:
            Cancelled, TimedOut: leaving the context then stops the prompt, or raises `Hang`.
            EngineCrashed: ComfyUI died, or was restarted and knows nothing of the prompt.
            ExecutionFailed, OutOfMemory, DiskFull: a node failed.
        """
        while not self._settled:
            self._check_limits()
            self._listen()
            if time.monotonic() >= self._look_at:
                self._look()
        ending = self._record.ending
        if isinstance(ending, Failed):
            self._queued = not ending.ends_prompt
            raise failure(ending)
        self._queued = False
        if isinstance(ending, Interrupted):
            raise ExecutionFailed("The workflow was interrupted from outside the worker.")
        return self._record.execution(self.prompt_id)

    def _withdrawn(self) -> bool:
        """Take the prompt out of ComfyUI's queue, or interrupt it; whether it is out in time."""
        deadline = Deadline(self._limits.stop_timeout_s)
        interrupt_at = 0.0
        while not deadline.passed:
            try:
                if time.monotonic() >= interrupt_at:
                    # Again and again: ComfyUI forgets an interrupt that comes as a prompt starts.
                    interrupt_at = time.monotonic() + _INTERRUPT_AGAIN_S
                    self._http.dequeue(self.prompt_id)
                    self._http.interrupt(self.prompt_id)
                queue = self._http.queue()
                if self.prompt_id not in queue.running | queue.pending:
                    return True
            except EngineUnavailable:
                if not self._engine.alive:
                    return True
            time.sleep(_SETTLING_S)
        return False

    @property
    def _settled(self) -> bool:
        """Whether nothing more can come to light."""
        if isinstance(self._record.ending, Succeeded):
            return self._told or (not self._gap and self._record.complete)
        return self._record.ending is not None

    def _check_limits(self) -> None:
        if not self._running and self._record.started_at is not None:
            self._running = True
            self._deadline = Deadline(self._limits.timeout_s)
        if self._cancel.cancelled:
            raise Cancelled("The job was cancelled.")
        if self._deadline.passed:
            what = "The workflow ran" if self._running else "The workflow waited in the queue"
            advice = "; raise timeout_s or ask for less." if self._running else "; try again later."
            raise TimedOut(f"{what} longer than {self._deadline.seconds:g} s{advice}")

    def _listen(self) -> None:
        patience_s = min(_TICK_S, max(0.0, self._look_at - time.monotonic()))
        if not self._stream.is_open:
            time.sleep(patience_s)
            return
        try:
            event = self._stream.next(patience_s)
        except StreamLost:
            log.warning("socket lost", extra={"prompt_id": self.prompt_id})
            self._gap = True
            self._look_at = time.monotonic()
            return
        if event is None:
            self._check_alive()
            return
        self._record.apply(event)
        self._look_at = time.monotonic() + self._pause_s

    def _look(self) -> None:
        """Ask history and queue, and open a lost socket again."""
        if not self._stream.is_open:
            self._reopen()
        try:
            self._ask()
        except EngineUnavailable as error:
            self._judge(error)
        else:
            self._unreachable_since = None
        self._look_at = time.monotonic() + self._pause_s

    @property
    def _pause_s(self) -> float:
        """How long to listen before the next look."""
        if self._record.ending is not None:
            return _SETTLING_S
        # Opened again, a socket may stay deaf: the server drops the id when it notices the old
        # one's end. So once there was a gap, history is asked as if there were no socket.
        return _AWAY_S if self._gap else _SILENCE_S

    def _ask(self) -> None:
        entry = self._http.history(self.prompt_id)
        if entry is not None:
            for event in parse_history(entry):
                self._record.apply(event)
            self._told = True
            return
        queue = self._http.queue()
        if self.prompt_id in queue.running:
            self._record.apply(Started())
        self._remember(known=self.prompt_id in queue.running | queue.pending)

    def _remember(self, *, known: bool) -> None:
        now = time.monotonic()
        if known:
            self._forgotten_since = None
        elif self._forgotten_since is None:
            # It may have ended between the two questions; history tells the next time.
            self._forgotten_since = now
            self._gap = True
        elif now - self._forgotten_since > _FORGOTTEN_S:
            raise EngineCrashed("ComfyUI was restarted and has lost the job.")

    def _reopen(self) -> None:
        try:
            self._stream.open()
        except StreamLost:
            self._check_alive()

    def _judge(self, error: EngineUnavailable) -> None:
        self._check_alive()
        now = time.monotonic()
        if not isinstance(error, EngineUnreachable):
            return  # slow, while it loads a model perhaps: the deadline decides
        self._unreachable_since = self._unreachable_since or now
        if now - self._unreachable_since > _UNREACHABLE_S:
            crash = EngineCrashed("ComfyUI stopped answering while it had the job.")
            raise Hang(crash, self._generation) from error

    def _check_alive(self) -> None:
        if not self._engine.alive:
            raise EngineCrashed("ComfyUI ended while it had the job.")
