"""How far a running graph is, as one percentage that never goes back."""

from worker.comfyui.client import Step
from worker.progress import Progress
from workflows.template import Graph

# Where each stage of a generation begins, in percent of the job.
LOADING, SAMPLING, DECODING, ENCODING, UPLOADING = 5.0, 10.0, 85.0, 90.0, 95.0


class Stages:
    """Turns a run's steps into progress: loading, sampling, decoding, encoding.

    Several samplers (a start frame, then the video) share the sampling stage evenly.
    """

    def __init__(self, graph: Graph, progress: Progress) -> None:
        self._progress = progress
        self._samplers = [node for node, spec in graph.items() if "steps" in spec["inputs"]]
        self._begun: list[str] = []

    def on_step(self, step: Step) -> None:
        """Take note of a node's beginning, or of a sampling step."""
        sampled = len(self._begun) >= len(self._samplers)
        if step.steps and step.node in self._samplers:
            self._sampling(step)
        elif "Loader" in step.node_type and not self._begun:
            self._progress.report("loading", LOADING)
        elif step.node_type.startswith("VAEDecode") and sampled:
            self._progress.report("decoding", DECODING)
        elif step.node_type.startswith(("Save", "CreateVideo")) and sampled:
            self._progress.report("encoding", ENCODING)

    def _sampling(self, step: Step) -> None:
        if step.node not in self._begun:
            self._begun.append(step.node)
        before = self._begun.index(step.node)
        share = (before + step.step / step.steps) / len(self._samplers)
        percent = SAMPLING + (DECODING - SAMPLING) * share
        self._progress.report("sampling", percent, step=step.step, steps=step.steps)
