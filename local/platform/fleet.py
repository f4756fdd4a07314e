"""The pods of one endpoint: how many, in which state, and which to end."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from local.platform.pods import Pod, PodOptions


class PodFleet:
    """Pods that run until the fleet is retired.

    Args:
        options: how each pod is run.
        platform_environment: `RUNPOD_…` for a pod id.
        on_gone: told when a worker's process has ended.
        on_drain: told when a worker is to get no more jobs, so that its polls are answered.
        busy: whether a worker has jobs in hand.
    """

    def __init__(
        self,
        options: PodOptions,
        *,
        platform_environment: Callable[[str], Mapping[str, str]],
        on_gone: Callable[[str], None],
        on_drain: Callable[[], None],
        busy: Callable[[str], bool],
    ) -> None:
        self._options = options
        self._platform_environment = platform_environment
        self._on_gone = on_gone
        self._on_drain = on_drain
        self._busy = busy
        self._pods: dict[str, tuple[Pod, asyncio.Task[None]]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._started = 0

    @property
    def pods(self) -> list[Pod]:
        """The pods that run now, oldest first."""
        return [pod for pod, _task in self._pods.values()]

    async def scale(self, workers: int) -> None:
        """Start pods, or stop the youngest ones, until there are `workers`; waits for the stops."""
        while len(self._pods) < workers:
            self._start()
        surplus = [self._pods.pop(pod.id) for pod in self.pods[workers:]]
        retiring = [asyncio.create_task(pod.retire()) for pod, _task in surplus]
        await asyncio.sleep(0)  # each has refused further jobs by now
        self._on_drain()
        await asyncio.gather(*retiring, *(task for _pod, task in surplus))

    def _start(self) -> None:
        self._started += 1
        pod = Pod(
            self._started,
            self._options,
            platform_environment=self._platform_environment,
            on_gone=self._on_gone,
        )
        self._pods[pod.id] = pod, asyncio.create_task(pod.run())

    async def close(self) -> None:
        """Stop every pod."""
        await self.scale(0)
        await asyncio.gather(*self._chores)

    def accepts_jobs(self, worker_id: str) -> bool:
        """Whether this worker may have jobs: it is known and not being stopped."""
        return worker_id in self._pods and self._pods[worker_id][0].accepts_jobs

    def seen(self, worker_id: str, *, unhealthy: str | None = None) -> None:
        """A worker pinged, perhaps to say why it is unfit."""
        if worker_id in self._pods:
            self._pods[worker_id][0].seen(unhealthy=unhealthy)

    def refresh(self, worker_id: str) -> None:
        """A worker asked to be stopped after its job (`stopPod`)."""
        if worker_id in self._pods:
            chore = asyncio.create_task(self.stop(self._pods[worker_id][0]))
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)

    async def stop(self, pod: Pod) -> None:
        """SIGTERM and the grace, then the next life of it; waits for the end of this one."""
        stopping = asyncio.create_task(pod.refresh())
        await asyncio.sleep(0)  # it has refused further jobs by now
        self._on_drain()
        await stopping

    def kill_silent(self) -> None:
        """End the workers whose pings stopped."""
        for pod in self.pods:
            pod.kill_if_silent()

    def states(self) -> dict[str, int]:
        """How many workers are in which state, as `/health` names them."""
        counts = dict.fromkeys(("idle", "initializing", "ready", "running", "unhealthy"), 0)
        for pod in self.pods:
            if pod.unhealthy is not None:
                counts["unhealthy"] += 1
            elif not pod.ready:
                counts["initializing"] += 1
            else:
                counts["running" if self._busy(pod.id) else "idle"] += 1
        return counts

    def report(self) -> dict[str, dict[str, Any]]:
        """Every pod's account of its lives."""
        return {pod.id: pod.report() for pod in self.pods}
