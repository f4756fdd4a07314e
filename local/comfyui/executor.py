"""The thread that runs prompts one after another."""

import os
import threading
import time
import traceback
from typing import Final, NoReturn

from local.comfyui.execution import Engine, Execution
from local.comfyui.prompts import Prompt, Prompts

_IDLE_LOOK_S: Final = 0.2


class Executor:
    """Takes prompts from the queue for as long as the process lives."""

    def __init__(self, engine: Engine, prompts: Prompts) -> None:
        self._engine = engine
        self._prompts = prompts
        self._free = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prompts", daemon=True)

    def start(self) -> None:
        """Begin to take prompts."""
        self._thread.start()

    def free_memory(self) -> None:
        """Forget all results before the next prompt."""
        self._free.set()

    def _work(self) -> None:
        """Take prompts for ever; what nobody foresaw ends the process, which would only hang."""
        try:
            self._take_prompts()
        finally:
            traceback.print_exc()
            os._exit(1)

    def _take_prompts(self) -> NoReturn:
        while True:
            prompt = self._prompts.take(_IDLE_LOOK_S)
            if self._free.is_set():
                self._free.clear()
                self._engine.cache.clear()
            if prompt is not None:
                self._run(prompt)

    def _run(self, prompt: Prompt) -> None:
        faults, events = self._engine.context.faults, self._engine.events
        faults.reload()
        result = Execution(self._engine, prompt, self._prompts.interruption, _hang).run()
        time.sleep(faults.latency_s("history_delay_s"))
        self._prompts.done(result, keep=not faults.due("lose_history"))
        if prompt.client_id is not None:
            data = {"node": None, "prompt_id": prompt.prompt_id}
            events.publish("executing", data, prompt.client_id)
        status = result["status"]["status_str"]
        print(f"Prompt {prompt.prompt_id} executed: {status}", flush=True)


def _hang() -> NoReturn:
    """Do nothing any more, like a wedged GPU: no interrupt reaches this."""
    while True:
        time.sleep(3600)
