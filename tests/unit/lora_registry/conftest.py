"""A registry on a store in memory, and a small real LoRA."""

from pathlib import Path

import pytest

from lora_registry.records import Replay
from lora_registry.registry import Registry
from tests.loras import write_lora
from tests.stores import MemoryStore, WatchedStore


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def watched(memory: MemoryStore) -> WatchedStore:
    return WatchedStore(memory)


@pytest.fixture
def replay() -> Replay:
    return Replay(deadline_s=5.0, first_pause_s=0.001, longest_pause_s=0.01)


@pytest.fixture
def registry(watched: WatchedStore, replay: Replay) -> Registry:
    return Registry(watched, replay=replay)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "lora.safetensors")
