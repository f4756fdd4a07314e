"""The kohya engine: sd-scripts as a child process that is watched, restarted and never believed."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from worker.cancel import CancelToken, Deadline
from worker.child import ChildProcess
from worker.errors import (
    DiskFull,
    EngineCrashed,
    EngineUnavailable,
    ModelMissing,
    OutOfMemory,
    TrainingDiverged,
    TrainingFailed,
)
from worker.settings import inherited_environment
from worker.training import kohya_command
from worker.training.kohya_command import KohyaOptions, Resume
from worker.training.kohya_state import Attempt, Attempts, TrainerOutput, diverged, failure_in
from worker.training.trainer import (
    OnStep,
    PreparedDataset,
    TrainingSpec,
    TrainingStep,
    low_memory,
)

log = logging.getLogger(__name__)

MAX_RESTARTS: Final = 2
_LOOK_S: Final = 0.1
_STOP_TIMEOUT_S: Final = 3.0  # before SIGKILL; a cancel is done within five seconds


class KohyaTrainer:
    """Trains with sd-scripts in its own environment.

    A crash of its process is continued from the last saved state, at most twice; running out of
    GPU memory is tried once more at half the batch with gradient checkpointing.
    """

    def __init__(self, options: KohyaOptions) -> None:
        self._options = options

    @property
    def name(self) -> str:
        """`kohya`, with the version that the command line is made for."""
        return f"kohya ({kohya_command.VERSION})"

    def train(
        self,
        spec: TrainingSpec,
        dataset: PreparedDataset,
        workdir: Path,
        on_step: OnStep,
        cancel: CancelToken,
    ) -> Path:
        """See `Trainer.train`; continues from what an earlier process left in `workdir`."""
        self._check_installed()
        attempts = Attempts(workdir, spec.steps)
        deadline = Deadline(spec.deadline_s)
        restarts, spared = 0, False
        while True:
            attempt, resume = attempts.next()
            run = _Run(self._options, spec, dataset, attempt, resume)
            try:
                return run.watch(on_step, cancel, deadline)
            except OutOfMemory:
                smaller = low_memory(spec)
                if spared or smaller == spec:
                    raise
                spared = True
                spec = replace(smaller, deadline_s=deadline.remaining)
                log.warning("out of memory", extra={"batch_size": spec.batch_size})
            except EngineCrashed:
                restarts += 1
                if restarts > MAX_RESTARTS:
                    raise
                if resume is not None and not run.stepped:
                    attempts.discard(resume)
                log.warning("trainer crashed", extra={"restart": restarts})

    def _check_installed(self) -> None:
        options = self._options
        if not options.checkpoint.is_file():
            raise ModelMissing(
                f"Checkpoint {options.checkpoint.name!r} is not on this worker; "
                "set TRAIN_CHECKPOINT to one that is.",
                details={"checkpoint": options.checkpoint.name},
            )
        files = [path for path in options.models.values() if not path.is_file()]
        files += [
            folder
            for name in options.recipe.tokenizers
            if not (folder := options.tokenizers / name).is_dir()
        ]
        if files:
            names = [path.name for path in files]
            raise ModelMissing(
                f"The training needs files that this worker does not have: {', '.join(names)}.",
                details={"models": names},
            )
        script = options.folder / options.recipe.script
        if not script.is_file() or shutil.which(options.python) is None:
            message = "The kohya trainer is not installed on this worker; use comfyui."
            raise EngineUnavailable(message, field="trainer")


class _Run:
    """One attempt: a process from its start to the file it leaves, or to why it left none."""

    def __init__(
        self,
        options: KohyaOptions,
        spec: TrainingSpec,
        dataset: PreparedDataset,
        attempt: Attempt,
        resume: Resume | None,
    ) -> None:
        self._options = options
        self._spec = spec
        self._attempt = attempt
        self._output = TrainerOutput()
        self._last: TrainingStep | None = None
        file = attempt.folder / "dataset.toml"
        file.write_text(kohya_command.dataset_toml(spec, dataset), encoding="utf-8")
        self._child = ChildProcess(
            kohya_command.command(options, spec, file, attempt.folder, resume),
            name="sd-scripts",
            cwd=attempt.folder,
            env=inherited_environment(**kohya_command.environment(attempt.folder)),
            on_output=self._output.take,
            stop_timeout_s=_STOP_TIMEOUT_S,
        )

    @property
    def stepped(self) -> bool:
        """Whether it came as far as a step of its own."""
        return self._last is not None and self._last.step > self._attempt.base

    def watch(self, on_step: OnStep, cancel: CancelToken, deadline: Deadline) -> Path:
        """Run to the end; whatever ends it, no process is left."""
        with self._child:
            while self._child.wait(_LOOK_S) is None:
                cancel.check()
                deadline.check("The training")
                self._check_silence()
                self._hand_on(on_step)
        self._hand_on(on_step)
        if self._child.returncode != 0:
            self._explain()
        return self._file()

    def _hand_on(self, on_step: OnStep) -> None:
        for seen in self._output.steps():
            if self._attempt.bar_total is None:
                self._attempt = replace(self._attempt, bar_total=seen.steps)
                self._attempt.write()
            step = replace(seen, step=self._attempt.base + seen.step, steps=self._spec.steps)
            if diverged(step):
                raise TrainingDiverged(
                    f"The training diverged at step {step.step}; try a lower learning_rate.",
                    field="learning_rate",
                    details={"step": step.step, "learning_rate": self._spec.learning_rate},
                )
            self._last = step
            on_step(step)

    def _check_silence(self) -> None:
        if self._output.silence_s > self._options.stall_timeout_s:
            log.error("trainer is silent", extra={"output": self._child.tail()})
            raise TrainingFailed(
                f"The trainer said nothing for {self._options.stall_timeout_s:g} s and was ended.",
                details={"step": self._last.step if self._last else 0},
            )

    def _explain(self) -> NoReturn:
        tail, status = self._child.tail(), self._child.returncode or 0
        log.error("trainer failed", extra={"status": status, "output": tail})
        details = {"status": status, "step": self._last.step if self._last else 0}
        match failure_in(tail):
            case "out_of_memory":
                raise OutOfMemory(
                    "The GPU's memory did not suffice; lower resolution, rank or batch_size.",
                    field="resolution",
                    details=details | {"batch_size": self._spec.batch_size},
                )
            case "disk_full":
                message = "The local disk is full; give the container more disk."
                raise DiskFull(message, details=details)
            case None if status < 0 or self.stepped:
                raise EngineCrashed(_crash(status), details=details)
            case None:
                message = "The trainer ended with an error before its first step."
                raise TrainingFailed(message, details=details)

    def _file(self) -> Path:
        """The result of a run that says it went well, which proves nothing."""
        file = self._attempt.folder / f"{self._spec.name}.safetensors"
        done = self._last.step if self._last else 0
        if done < self._spec.steps or not file.is_file():
            log.error("trainer left no result", extra={"output": self._child.tail()})
            raise TrainingFailed(
                f"The trainer ended after {done} of {self._spec.steps} steps without a result.",
                details={"step": done, "steps": self._spec.steps},
            )
        return file


def _crash(status: int) -> str:
    if status == -9:  # noqa: PLR2004 - SIGKILL
        return "The trainer was killed; as a rule the container's memory did not suffice."
    if status < 0:
        return f"The trainer's process ended by signal {-status}."
    return "The trainer's process crashed in the middle of the training."
