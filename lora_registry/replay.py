"""Doing something again that other writers or a busy store got in the way of."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from lora_registry.errors import DocumentInvalid
from lora_registry.store import (
    ConditionsUnsupported,
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreThrottled,
)

log = logging.getLogger(__name__)

_TORN_PAUSES_S: Final = (0.02, 0.1)
_MAX_FAILURES: Final = 3  # of the kind that the store's client has retried already
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Replay:
    """How long and how often; the pauses are drawn between 0 and a doubling bound (full jitter).

    Attributes:
        deadline_s: conflicts and throttling are replayed for so long, counted from the first try.
        first_pause_s: the first pause's upper bound.
        longest_pause_s: no pause is longer.
        sleep: waits; tests give their own.
    """

    deadline_s: float = 30.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, action: Callable[[], T]) -> T:
        """Do it until it works.

        An action must be safe to do again: a failure may be a lost reply. Conflicts (404, 409, 412
        of a write) and throttling are replayed until the deadline, other failures of the store
        three times.

        Raises:
            StoreError: the last one.
        """
        ends = time.monotonic() + self.deadline_s
        bound, failures = self.first_pause_s, 0
        while True:
            try:
                return action()
            except StoreError as error:
                failures += not isinstance(error, (PreconditionFailed, StoreThrottled))
                last = failures > _MAX_FAILURES or time.monotonic() + bound > ends
                if last or isinstance(error, (ObjectMissing, ConditionsUnsupported)):
                    raise
                log.info("registry request replayed", extra={"reason": type(error).__name__})
            self.sleep(random.uniform(0.0, bound))  # noqa: S311 - spreads writers, keeps no secret
            bound = min(bound * 2, self.longest_pause_s)


def unless_torn(read: Callable[[], T]) -> T:
    """Read a document, again after a moment if it does not parse.

    S3 shows an object either before or after a write; some servers show it meanwhile (nanio sends
    the new bytes cut to the old length).

    Raises:
        DocumentInvalid: it still does not parse after 0.12 s.
    """
    for pause in _TORN_PAUSES_S:
        try:
            return read()
        except DocumentInvalid as error:
            log.info("registry document read again", extra={"key": error.key})
        time.sleep(pause)
    return read()
