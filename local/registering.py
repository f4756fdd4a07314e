"""Characters for load and fault tests, registered straight through the registry."""

from collections.abc import Iterable

from local.lora_file import write_demo_lora
from local.stack import Stack
from lora_registry.registry import Registry
from lora_registry.versions import NewVersion
from worker.storage import ObjectStore


def register_characters(stack: Stack, names: Iterable[str], *, rank: int = 1) -> None:
    """Register each name with a LoRA of its own: 5.4 MB a rank, untrained, no two alike."""
    weights = stack.folder / "registering.safetensors"
    with ObjectStore(stack.s3.options()) as store:
        registry = Registry(store)
        for number, name in enumerate(names):
            write_demo_lora(weights, rank=rank, seed=number)
            job_id = f"register-{name}"
            registry.add_version(NewVersion(name, job_id, weights, "sdxl", "kohya", rank, "ohwx"))
