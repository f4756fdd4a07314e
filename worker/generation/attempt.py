"""A request in a workflow's words, and one try at it: run, measure, deliver, write the manifest."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lora_registry.character import CharacterRecord
from worker.comfyui.client import OutputFile
from worker.contract import Generation
from worker.errors import EngineCrashed, EngineUnavailable, InvalidInput, TimedOut
from worker.generation.delivery import Delivery, FinishOutput, manifest_of
from worker.generation.likeness import Contest, Judge, Wish, seeds
from worker.generation.products import Finished
from worker.generation.uptake import applied, warnings_of
from worker.generation.used_characters import ResolvedCharacter
from worker.resources import QUEUED, UPLOADING, JobContext, ProgressTracker, Resources
from worker.results import GenerationResult, ManifestResult, WorkflowResult
from workflows.binding import Bound, LoraUse, Values, bind
from workflows.template import Output, Value, Workflow

OnFiles = Callable[[str, tuple[OutputFile, ...]], None]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A job translated into a workflow's words.

    Attributes:
        values: what the workflow's roles get; None leaves what its graph says. Prompt and seed
            are added by `generate`.
        records: of the characters, where they were read already.
        files: file of the workflow's own -> its name where ComfyUI reads inputs.
        finish: checks a produced file, and says what of it is uploaded.
        lower: the fields that a person lowers when the GPU's memory does not suffice.
        likeness: what the job asks of it; None measures nothing.
    """

    task: Literal["image", "video", "workflow"]
    job: Generation
    workflow: Workflow
    values: Mapping[str, Value | None]
    finish: FinishOutput
    records: Mapping[str, CharacterRecord] = field(default_factory=dict)
    prompt: str | None = None
    output_format: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    lower: tuple[str, ...] = ()
    likeness: Wish | None = None

    @property
    def brought(self) -> frozenset[str]:
        """The roles and inputs that the job fills itself."""
        return frozenset(name for name, value in self.values.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job, and what it is made with."""

    request: GenerationRequest
    characters: Sequence[ResolvedCharacter]
    loras: tuple[LoraUse, ...]
    params: Mapping[str, Value]
    judge: Judge | None
    low_memory: bool
    resources: Resources
    context: JobContext

    def make(
        self, folder: str, values: Mapping[str, Value | None], photos: Mapping[str, str]
    ) -> dict[str, Any]:
        """Run the graph, or several, deliver what they make, and write the manifest.

        Args:
            folder: key below which the job's objects go.
            values: what the workflow's roles get, as the manifest has them.
            photos: the characters' photos as files of ComfyUI.
        """
        contest = self._contest()
        measured = self.judge is not None and contest is None
        finish = self._finish_measured if measured else self.request.finish
        with Delivery(self.resources, self.context, folder, finish, self._outputs) as delivery:
            filled = {**values, **photos}
            if contest is None:
                seconds = self._run(filled, delivery)
            else:
                seconds = self._compete(contest, filled, delivery)
            self.context.progress.report("uploading", UPLOADING)
            warnings = self._unapplied(seconds)
            if contest is not None:
                warnings += contest.warnings()
            elif self.judge is not None and self.judge.problem and self._chooses:
                warnings.append(
                    f"The pictures are not chosen, likeness is not measured: {self.judge.problem}."
                )
            with self.context.timings.phase("upload"):
                result = self._conclude(values, delivery, contest)
            return {**result, "warnings": warnings} if warnings else result

    @property
    def _outputs(self) -> list[Output]:
        """Those of the workflow that this job's format has run."""
        formats = {None, self.request.output_format}
        return [output for output in self.request.workflow.outputs if output.format in formats]

    @property
    def _chooses(self) -> bool:
        """Whether the job asks for a choice among several pictures."""
        wish = self.request.likeness
        return wish is not None and (wish.least is not None or wish.most > wish.count)

    def _contest(self) -> Contest | None:
        """A choice among several pictures, where the job asks for one and it can be made.

        Raises:
            InvalidInput: the workflow makes the same picture every time.
        """
        wish, workflow = self.request.likeness, self.request.workflow
        if wish is None or self.judge is None or self.judge.problem or not self._chooses:
            return None
        if "seed" not in workflow.roles:
            raise InvalidInput(
                f"best_of: workflow {workflow.name!r} takes no seed, so there is nothing to "
                "choose from.",
                field="best_of",
            )
        return Contest(wish, self.judge, self.resources)

    def _finish_measured(self, path: Path) -> Sequence[Finished]:
        """What the job does with a file, with its likeness among the facts if it is a picture."""
        first, *others = self.request.finish(path)
        if self.judge is not None and first.kind == "image":
            first = replace(first, facts={**first.facts, "likeness": self.judge.score(path)})
        return [first, *others]

    def _bind(self, values: Mapping[str, Value | None], delivery: Delivery) -> Bound:
        """A graph of this try: with names of its own, since cached nodes write no files."""
        return bind(
            self.request.workflow,
            Values(
                prefix=f"{delivery.run_id}/{self.request.task}",
                roles=values,
                params=self.params,
                loras=self.loras,
                output_format=self.request.output_format,
                files=self.request.files,
                low_memory=self.low_memory,
            ),
        )

    def _run(self, values: Mapping[str, Value | None], delivery: Delivery) -> float:
        """Run one graph and hand its files on; returns the seconds that it took."""
        bound = self._bind(values, delivery)
        tracker = ProgressTracker(bound.graph, self.context.progress)
        seconds = self._execute(bound, delivery.listener(bound.outputs), tracker)
        delivery.check_complete(bound.outputs)
        return seconds

    def _compete(
        self, contest: Contest, values: Mapping[str, Value | None], delivery: Delivery
    ) -> float:
        """Make candidates one by one and deliver the best; returns the seconds that they took."""
        workflow, seconds = self.request.workflow, 0.0
        first, limits = int(values["seed"] or 0), workflow.limits.get("seed")
        # A picture a graph: each is then made again by its own seed alone.
        single = {**values, "count": 1 if "count" in workflow.roles else None}
        for number, seed in enumerate(seeds(first, limits)):
            bound = self._bind({**single, "seed": seed}, delivery)
            tracker = ProgressTracker(bound.graph, self.context.progress, number, contest.most)
            seconds += self._execute(bound, contest.begin(seed, bound.outputs), tracker)
            if contest.settled():
                break
        for candidate in contest.best():
            for output, file in candidate.files:
                delivery.take(output, (file,), seed=candidate.seed, likeness=candidate.likeness)
        return seconds

    def _execute(self, bound: Bound, on_files: OnFiles, tracker: ProgressTracker) -> float:
        """Run a graph; returns the seconds that it took, without its wait."""
        context, resources = self.context, self.resources
        limit_s = self.request.job.timeout_s or resources.settings.job_timeout_s
        left_s = limit_s - context.timings.busy_s
        if left_s <= 0:
            raise TimedOut(
                f"Preparing the job took longer than {limit_s:g} s; raise timeout_s or send less.",
                details={"timeout_s": limit_s},
            )
        context.progress.report("queued", QUEUED)
        begun = time.monotonic()
        try:
            execution = resources.comfyui.run(
                bound.graph,
                timeout_s=left_s,
                cancel=context.cancel,
                on_step=tracker.on_step,
                on_files=on_files,
            )
        except (EngineCrashed, EngineUnavailable):
            # The second try has what this one had: another job's hang is not this one's time.
            context.timings.add("lost", (time.monotonic() - begun) * 1000)
            raise
        context.timings.add("queued", execution.queued_ms)
        context.timings.add("execution", execution.executed_ms)
        return execution.executed_ms / 1000

    def _unapplied(self, seconds: float) -> list[str]:
        """What the result warns of. Raises InvalidInput for a LoRA that changed nothing."""
        workflow, loras = self.request.workflow, self.loras
        names = (*(lora.name for lora in loras), workflow.digest)
        said = self.resources.engine.lora_log.of_prompt(seconds, names)
        if not (said.keys or said.weights):
            return []
        folder, alone = self.resources.settings.loras_folder, len(loras) == 1
        trained = [character.character_id for character in self.characters if character.version]
        used = [
            applied(character_id, folder / lora.name, said, alone=alone)
            for character_id, lora in zip(trained, loras, strict=True)
        ]
        return warnings_of(used, workflow.name)

    def _conclude(
        self, values: Mapping[str, Value | None], delivery: Delivery, contest: Contest | None
    ) -> dict[str, Any]:
        """Write the manifest while the outputs are still on their way, then wait for all of it."""
        request, resources, context = self.request, self.resources, self.context
        key = f"{delivery.folder}/manifest.json"
        url = resources.store.presign(
            key, resources.settings.url_expires_s, content_type="application/json"
        ).url
        used = [character.result() for character in self.characters]
        seed, prompt = values["seed"], values["prompt"]
        result = GenerationResult(
            task=request.task,
            job_id=context.job_id,
            outputs=delivery.described(),
            seed=int(seed) if seed is not None else None,
            prompt=str(prompt) if prompt is not None else None,
            character=used[0] if len(used) == 1 else None,
            characters=used if len(used) > 1 else None,
            selection=contest.result() if contest is not None else None,
            workflow=WorkflowResult(name=request.workflow.name, digest=request.workflow.digest),
            manifest=ManifestResult(key=key, url=url),
            timings_ms=context.timings.milliseconds(),
        )
        manifest = manifest_of(
            result,
            request.job,
            characters=self.characters,
            values=values,
            versions=resources.availability.versions,
        )
        delivery.add_document(key, manifest)
        delivery.wait()
        return {**result.to_json(), "timings_ms": context.timings.milliseconds()}
