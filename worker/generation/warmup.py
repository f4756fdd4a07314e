"""One tiny picture before jobs are taken, so that the first customer does not wait for models."""

import logging
import uuid
from typing import Final

from PIL import Image

from errors import CodedError
from worker import media
from worker.cancel import CancelToken
from worker.resources import Resources
from workflows.binding import Values, bind
from workflows.template import Value, Workflow

log = logging.getLogger(__name__)

SIDE: Final = 256
_TINY: Final[dict[str, Value]] = {
    "prompt": "warm-up",
    "width": SIDE,
    "height": SIDE,
    "steps": 1,
    "frames": 2,
    "count": 1,
}
_PICTURES: Final = frozenset({"image", "mask"})


def warm_up(resources: Resources, name: str) -> None:
    """Run a workflow once, as small as it goes; a failure is logged, the jobs will say more.

    Raises:
        WorkflowNotFound: a setting that names no workflow.
    """
    workflow = resources.workflows[name]
    run_id, placed = uuid.uuid4().hex, None
    try:
        roles = {role: value for role, value in _TINY.items() if role in workflow.roles}
        pictures = [name for name, given in workflow.inputs.items() if given.kind in _PICTURES]
        if pictures:
            grey = media.encode(Image.new("RGB", (SIDE, SIDE), "grey"), "png")
            placed = resources.comfyui.place_input(grey, f"warm-up-{run_id}.png")
            roles |= dict.fromkeys(pictures, placed)
        _run(resources, workflow, roles, run_id)
    except CodedError as error:
        log.warning("warm-up failed", extra={"workflow": name, "reason": str(error)})
    finally:
        resources.comfyui.delete_folder(run_id)
        if placed:
            resources.comfyui.remove_input(placed)


def _run(resources: Resources, workflow: Workflow, roles: dict[str, Value], run_id: str) -> None:
    output_format = workflow.formats[0] if workflow.formats else None
    values = Values(prefix=f"{run_id}/warm-up", roles=roles, output_format=output_format)
    resources.comfyui.run(
        bind(workflow, values).graph,
        timeout_s=resources.settings.job_timeout_s,
        cancel=CancelToken(),
        on_step=lambda _: None,
        on_files=lambda _node, _files: None,
    )
