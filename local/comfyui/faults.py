"""Latencies and faults that a test switches on; the one part of the stand-in ComfyUI lacks.

They are set by `POST /stand-in/faults`, or by a JSON file named with `--stand-in-faults`, which is
read at the start and again before each prompt and may hold a list of such objects. Latencies stay
until changed; a fault happens `times` times (once when not said), and what is left of it is written
back to the file, so that it is not caused again by the restart that it provoked.

    {"step_latency_s": 0.2, "crash_at": "step:3", "times": 1}

Moments, for the names that end in `_at`: `start`, `executing:KSampler` (before a node of that class
runs), `step:3` (after that sampling step), `executed:SaveImage`, `success` (announced, not yet in
history).
"""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

Latency = Literal[
    "start_delay_s",  # before it listens
    "load_latency_s",  # each checkpoint
    "step_latency_s",  # each sampling or training step
    "decode_latency_s",  # each VAE decode
    "history_delay_s",  # between execution_success and the prompt's place in history
]
Fault = Literal[
    "start_fail",  # exits with status 1 instead of starting
    "crash_at",  # the process is gone, as after kill -9
    "hang_at",  # nothing happens any more and no interrupt helps; HTTP goes on answering
    "drop_socket_at",  # the client's websocket is cut
    "oom_at_node",  # a node of this class fails as for want of GPU memory
    "fail_at_node",  # a node of this class raises RuntimeError
    "disk_full",  # a Save node finds no room
    "truncate_output",  # the first file saved loses its second half
    "empty_output",  # the first file saved is empty
    "missing_output",  # the first file saved is reported and not there
    "lose_history",  # the prompt never appears in history
    "http_error_at",  # a request to this route, as "POST /prompt", is answered 500
]

_LATENCIES: Final = get_args(Latency)
_FAULTS: Final = get_args(Fault)
_DEFAULTS: Final[Mapping[str, float]] = {"history_delay_s": 0.005}


class UnknownFault(Exception):
    """A name that is neither a latency nor a fault, or a value of the wrong type."""


class Faults:
    """What is switched on now; used from the executor's thread and the server's."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._latencies: dict[str, float] = dict(_DEFAULTS)
        self._armed: dict[str, tuple[str | bool, int]] = {}
        self.reload()

    def reload(self) -> None:
        """Read the file again, if there is one; it then decides alone what is switched on.

        Raises:
            UnknownFault: it holds something else than faults.
        """
        if self._file is None or not self._file.is_file():
            return
        held = json.loads(self._file.read_text(encoding="utf-8"))
        with self._lock:
            self._armed = {}
            for given in held if isinstance(held, list) else [held]:
                self._set(given)

    def set(self, given: Mapping[str, Any]) -> None:
        """Switch on what is given; `times` counts for all faults in it.

        Raises:
            UnknownFault: nothing is changed then.
        """
        with self._lock:
            self._set(given)
            self._write()

    def clear(self) -> None:
        """Back to no faults and default latencies."""
        with self._lock:
            self._latencies, self._armed = dict(_DEFAULTS), {}
            self._write()

    def shown(self) -> dict[str, Any]:
        """What is switched on, with the times left of each fault."""
        with self._lock:
            faults = {name: {"at": at, "times": left} for name, (at, left) in self._armed.items()}
            return {**self._latencies, **faults}

    def latency_s(self, name: Latency) -> float:
        """Seconds to wait."""
        with self._lock:
            return self._latencies.get(name, 0.0)

    def due(self, name: Fault, moment: str | None = None) -> bool:
        """Whether the fault is to happen now; asking uses up one of its times."""
        with self._lock:
            at, left = self._armed.get(name, ("", 0))
            if left == 0 or (moment is not None and at not in (moment, True)):
                return False
            self._armed[name] = (at, left - 1)
            if left == 1:
                del self._armed[name]
            self._write()
            return True

    def _set(self, given: Mapping[str, Any]) -> None:
        times = given.get("times", 1)
        names = [name for name in given if name != "times"]
        unknown = [name for name in names if name not in (*_LATENCIES, *_FAULTS)]
        if unknown or not isinstance(times, int) or times < 0:
            raise UnknownFault(f"Known: {', '.join((*_LATENCIES, *_FAULTS))}; times is a count.")
        for name in names:
            if name in _LATENCIES:
                self._latencies[name] = float(given[name])
            elif times and given[name]:
                self._armed[name] = (given[name], times)
            else:
                self._armed.pop(name, None)

    def _write(self) -> None:
        """Leave in the file what a restarted stand-in is still to do."""
        if self._file is None:
            return
        left = [{name: at, "times": count} for name, (at, count) in self._armed.items()]
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps([self._latencies, *left]))
        os.replace(temporary, self._file)  # noqa: PTH105 - says what it is for


def crash() -> None:
    """End this process as a kill would: no cleanup, no message."""
    os.kill(os.getpid(), 9)
