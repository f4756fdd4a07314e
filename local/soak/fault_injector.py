"""What breaks during the soak, at random: ComfyUI, the trainer, the bucket, the workers."""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from local.faults import FaultProxy, Rule
from local.platform.running import RunningPlatform

PAUSE_S: Final = (1.0, 5.0)
COMFYUI_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"crash_at": "step:1"},
    {"crash_at": "executed:SaveImage"},
    {"crash_at": "step:1", "start_fail": True},
    {"hang_at": "step:1"},
    {"drop_socket_at": "step:1"},
    {"drop_socket_at": "success"},
    {"oom_at_node": "KSampler"},
    {"oom_at_node": "KSampler", "times": 2},
    {"fail_at_node": "VAEDecode"},
    {"truncate_output": True},
    {"lose_history": True, "drop_socket_at": "success"},
    {"disk_full": True},
)
BUCKET_FAULTS: Final[tuple[Rule, ...]] = (
    Rule("error", times=3, status=503, code="SlowDown"),
    Rule("error", "PUT", times=3, status=500),
    Rule("reset", times=3),
    Rule("lose_reply", "PUT", times=2),
    Rule("cut_upload", "PUT", times=2, after=500),
    Rule("cut_reply", "GET", "/loras/", times=2, after=1000),
    Rule("delay", times=5, seconds=1.0),
    Rule("error", "PUT", "outputs/", times=12, status=503, code="SlowDown"),
)
TRAINER_FAULTS: Final = ("kill@2", "oom@1", "nan@3", "crash@4", "silent")


@dataclass(frozen=True, slots=True)
class Target:
    """One worker as trouble finds it: its id, its ComfyUI's port, its trainer's faults file."""

    worker_id: str
    comfyui_port: int
    trainer_faults: Path


class FaultInjector:
    """A thread that breaks something every few seconds.

    Args:
        platform: whose workers are killed and stopped; the last target's never is.
        targets: the workers.
        proxy: before the bucket.
        seed: of what breaks when.
    """

    def __init__(
        self,
        platform: RunningPlatform,
        targets: Sequence[Target],
        proxy: FaultProxy,
        seed: int,
    ) -> None:
        self.caused: Counter[str] = Counter()
        self._platform = platform
        self._workshops = targets
        self._killable = targets[:-1]
        self._proxy = proxy
        self._dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="injector")

    def begin(self) -> None:
        """Let things break."""
        self._thread.start()

    def end(self) -> None:
        """Break nothing more, and take back what has not happened yet."""
        self._over.set()
        self._thread.join()
        self._proxy.clear()
        for target in self._workshops:
            target.trainer_faults.unlink(missing_ok=True)
            self._ask_comfyui(target, "DELETE")

    def _run(self) -> None:
        kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "comfyui fault": (40, self._comfyui_fault),
            "bucket fault": (30, self._bucket_fault),
            "trainer fault": (10, self._trainer_fault),
            "comfyui killed": (10, self._kill_comfyui),
            "worker killed": (6, self._kill_worker),
            "worker stopped": (4, self._stop_worker),
        }
        names, weights = list(kinds), [weight for weight, _cause in kinds.values()]
        while not self._over.wait(self._dice.uniform(*PAUSE_S)):
            name = self._dice.choices(names, weights)[0]
            kinds[name][1]()
            self.caused[name] += 1

    def _comfyui_fault(self) -> None:
        target = self._dice.choice(self._workshops)
        self._ask_comfyui(target, "POST", self._dice.choice(COMFYUI_FAULTS))

    def _ask_comfyui(self, target: Target, method: str, faults: Any = None) -> None:
        url = f"http://127.0.0.1:{target.comfyui_port}/stand-in/faults"
        try:
            requests.request(method, url, json=faults, timeout=5)
        except requests.RequestException:  # it is down: trouble enough
            self.caused["comfyui was down already"] += 1

    def _bucket_fault(self) -> None:
        self._proxy.clear()
        rule = self._dice.choice(BUCKET_FAULTS)
        again = Rule(
            rule.fault,
            rule.method,
            rule.path,
            times=rule.times,
            status=rule.status,
            code=rule.code,
            after=rule.after,
            seconds=rule.seconds,
        )
        self._proxy.add(again)

    def _trainer_fault(self) -> None:
        target = self._dice.choice(self._workshops)
        target.trainer_faults.write_text(self._dice.choice(TRAINER_FAULTS))

    def _kill_comfyui(self) -> None:
        port = self._dice.choice(self._workshops).comfyui_port
        wanted = f"\0--port\0{port}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (folder / "cmdline").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:  # it ended meanwhile
                continue

    def _kill_worker(self) -> None:
        try:
            self._platform.kill(self._dice.choice(self._killable).worker_id)
        except (LookupError, ProcessLookupError):
            self.caused["worker was down already"] += 1

    def _stop_worker(self) -> None:
        self._platform.stop(self._dice.choice(self._killable).worker_id)
