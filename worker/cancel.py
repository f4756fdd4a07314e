"""Ending a job early: the token that a cancel sets, and the deadline that a wait carries."""

import threading
import time

from worker.errors import Cancelled, TimedOut


class CancelToken:
    """Set once, from any thread; everything that waits looks at it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask for the end of the job; returns at once."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if somebody asked for the end."""
        if self._event.is_set():
            raise Cancelled("The job was cancelled.")

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the cancel; raises `Cancelled` then."""
        if self._event.wait(max(0.0, seconds)):
            self.check()


class Deadline:
    """A point on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining == 0.0

    def check(self, what: str) -> None:
        """Raise `TimedOut` naming what took too long."""
        if self.passed:
            raise TimedOut(
                f"{what} took longer than {self.seconds:g} s; raise timeout_s or ask for less.",
                details={"timeout_s": self.seconds},
            )
