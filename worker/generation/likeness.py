"""Pictures measured against the faces of their characters; the most alike of several are chosen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lora_registry.identity import FaceIdentity
from worker.comfyui.client import OutputFile
from worker.errors import ExecutionFailed
from worker.generation.used_characters import ResolvedCharacter
from worker.likeness.faces import SMALLEST_FACE, matched
from worker.likeness.scorer import NAME, NotMeasured, Scorer
from worker.resources import JobContext, Resources
from worker.results import CandidateResult, LikenessResult, SelectionResult
from workflows.template import Limits, Output

MAX_SEED: Final = 2**53 - 1  # larger integers lose digits in JavaScript clients


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job asks of likeness.

    Attributes:
        count: how many pictures are delivered.
        most: how many are made at most; more than `count` means that they are chosen.
        least: likeness from which on a picture will do; None makes `most` and takes the best.
    """

    count: int = 1
    most: int = 1
    least: float | None = None


class Judge:
    """Scores pictures of one job's characters; safe to share between threads.

    Args:
        scorer: finds the faces.
        identities: by character, whom a face is compared with; a text says why there is none.
        check_cancelled: called while a picture is looked at; what it raises ends that.
    """

    def __init__(
        self,
        scorer: Scorer,
        identities: Mapping[str, FaceIdentity | str],
        check_cancelled: Callable[[], None],
    ) -> None:
        self._scorer = scorer
        self._known = {
            name: found for name, found in identities.items() if isinstance(found, FaceIdentity)
        }
        lacking = [found for found in identities.values() if isinstance(found, str)]
        self._lacking = "; ".join(lacking) or None
        self._check_cancelled = check_cancelled

    @property
    def problem(self) -> str | None:
        """Why no picture of the job can be measured; None where some of it can."""
        return self._scorer.lacking or (None if self._known else self._lacking)

    def score(self, path: Path) -> LikenessResult:
        """How alike a picture is; never fails, but says why there is no score.

        With several characters each face is matched to one of them, and the least alike one
        counts: where two are mixed up, that is low, and it is 0 where one has no face at all.
        """
        if self.problem is not None:
            return LikenessResult(reason=f"not measured: {self.problem}")
        several = len(self._known) > 1
        try:
            sight = self._scorer.look(path, thorough=several, check_cancelled=self._check_cancelled)
        except NotMeasured as problem:
            return LikenessResult(reason=f"not measured: {problem}")
        faces = [face for face in sight.faces if face.judged]
        if not sight.faces:
            return LikenessResult(reason="no face is found")
        if not faces:
            side = sight.faces[0].side
            return LikenessResult(reason=f"the face is {side} px wide, below {SMALLEST_FACE} px")
        found = matched([identity.centre for identity in self._known.values()], faces)
        by_name = {
            name: round(value or 0.0, 3) for name, value in zip(self._known, found, strict=True)
        }
        return LikenessResult(
            score=min(by_name.values()),
            characters=by_name if several else None,
            reason=self._lacking,
        )


def judge_of(
    characters: Sequence[ResolvedCharacter], resources: Resources, context: JobContext
) -> Judge:
    """The judge of a job's pictures; one request for each identity that is not in memory.

    Raises:
        StoreError, DocumentInvalid.
    """
    scorer = resources.scorer

    def identity(character: ResolvedCharacter) -> FaceIdentity | str:
        name, version = character.character_id, character.version
        found = resources.identities.get(name, version.version) if version else None
        if found is None:
            return f"no face of {name!r} is kept: its version was made without photos of one"
        if (found.scorer, found.scorer_version) != (NAME, scorer.version):
            return f"the face of {name!r} was measured by {found.scorer} {found.scorer_version}"
        return found

    identities: Mapping[str, FaceIdentity | str] = {}
    if scorer.lacking is None:
        found = resources.pool.map(identity, characters)
        names = [character.character_id for character in characters]
        identities = dict(zip(names, found, strict=True))
    return Judge(scorer, identities, context.cancel.check)


@dataclass(slots=True)
class Candidate:
    """One picture, or what else one run of the graph made, and how alike it is."""

    seed: int
    outputs: Mapping[str, Output]
    files: list[tuple[Output, OutputFile]] = field(default_factory=list)
    scores: list[Future[LikenessResult]] = field(default_factory=list)

    @property
    def likeness(self) -> LikenessResult:
        """The least of its pictures'; waits until they are looked at."""
        found = [score.result() for score in self.scores]
        none = LikenessResult(reason="there is no picture")
        return min(found, key=lambda one: one.score or 0.0, default=none)


class Contest:
    """The candidates of one try at a job; their files stay where ComfyUI wrote them.

    Args:
        wish: how many are made, and how many delivered.
        judge: scores them, in the pool, while the next is made.
    """

    def __init__(self, wish: Wish, judge: Judge, resources: Resources) -> None:
        self._wish = wish
        self._judge = judge
        self._resources = resources
        self.most = wish.most
        self.candidates: list[Candidate] = []

    def begin(
        self, seed: int, outputs: Sequence[Output]
    ) -> Callable[[str, tuple[OutputFile, ...]], None]:
        """A further candidate; takes the files that its nodes report."""
        candidate = Candidate(seed, {output.node: output for output in outputs})
        self.candidates.append(candidate)

        def on_files(node: str, files: tuple[OutputFile, ...]) -> None:
            output = candidate.outputs.get(node)
            for file in files if output is not None else ():
                candidate.files.append((candidate.outputs[node], file))
                if candidate.outputs[node].kind in {None, "image"}:  # None: the workflow's own
                    candidate.scores.append(self._resources.pool.submit(self._score, file))

        return on_files

    def settled(self) -> bool:
        """Whether enough will do already, or as many are made as may be.

        Raises:
            ExecutionFailed: the last run made nothing.
        """
        if not self.candidates[-1].files:
            raise ExecutionFailed("ComfyUI finished without the workflow's outputs.")
        if len(self.candidates) >= self._wish.most:
            return True
        return self._wish.least is not None and self.passed() >= self._wish.count

    def passed(self) -> int:
        """How many reach what the job asks for at least."""
        least = self._wish.least or 0.0
        scores = [candidate.likeness.score for candidate in self.candidates]
        return sum(score is not None and score >= least for score in scores)

    def best(self) -> list[Candidate]:
        """As many as are delivered, the most alike first."""
        ranked = sorted(self.candidates, key=lambda one: one.likeness.score or 0.0, reverse=True)
        return ranked[: self._wish.count]

    def result(self) -> SelectionResult:
        """All candidates in the order they were made."""
        best = self.best()
        return SelectionResult(
            made=len(self.candidates),
            min_likeness=self._wish.least,
            passed=None if self._wish.least is None else self.passed(),
            candidates=[
                CandidateResult(
                    seed=candidate.seed, likeness=candidate.likeness, delivered=candidate in best
                )
                for candidate in self.candidates
            ],
        )

    def warnings(self) -> list[str]:
        """A sentence where fewer pictures are alike enough than were asked for."""
        least, passed = self._wish.least, self.passed()
        if least is None or passed >= self._wish.count:
            return []
        best = self.best()[0].likeness
        shown = f"has {best.score:.2f}" if best.score is not None else "is not measured"
        told = f"{passed} of {len(self.candidates)} pictures reach min_likeness {least:g}"
        return [f"{told}; the most alike {shown}."]

    def _score(self, file: OutputFile) -> LikenessResult:
        with self._resources.comfyui.opened(file) as path:
            return self._judge.score(path)


def seeds(first: int, limits: Limits | None) -> Iterator[int]:
    """Seeds from `first` on, within what the workflow allows; begins anew at the largest."""
    low = int(limits.minimum or 0) if limits else 0
    high = int(limits.maximum) if limits and limits.maximum is not None else MAX_SEED
    span = max(high, first) - low + 1
    number = first - low
    while True:
        yield low + number % span
        number += 1
