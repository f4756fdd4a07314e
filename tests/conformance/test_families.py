"""Families' tables held against ComfyUI's own loader: the same keys, with the same shapes."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from families.family import Family, literal_patterns
from tests.loras import FAMILIES

HERE = Path(__file__).resolve().parent
COMFYUI = os.environ.get("COMFYUI_DIR", "")

pytestmark = pytest.mark.skipif(not COMFYUI, reason="needs COMFYUI_DIR, a real ComfyUI")


@pytest.fixture(scope="module")
def comfyui_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[int]]]:
    target = tmp_path_factory.mktemp("keys") / "keys.json"
    own = Path(COMFYUI) / ".venv" / "bin" / "python"
    python = os.environ.get("COMFYUI_PYTHON") or str(own)
    program = [python, str(HERE / "comfyui_keys.py"), str(HERE / "architectures.json"), str(target)]
    subprocess.run(program, cwd=COMFYUI, check=True, timeout=300)
    keys: dict[str, dict[str, list[int]]] = json.loads(target.read_text())
    return keys


def ours(family: Family) -> dict[str, list[int]]:
    """Every key that the family says ComfyUI loads."""
    return {
        layout.prefix + (name.replace(".", "_") if layout.underscores else name): list(shape)
        for layout in family.lora.layouts
        if layout.remedy is None
        for table in layout.names
        for pattern, shape in family.modules[table].items()
        for name in literal_patterns(pattern)
    }


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_names_what_comfyui_loads(
    comfyui_keys: dict[str, dict[str, list[int]]], name: str
) -> None:
    assert ours(FAMILIES[name]) == comfyui_keys[name]


def test_a_layout_that_is_said_to_load_as_nothing_does(
    comfyui_keys: dict[str, dict[str, list[int]]],
) -> None:
    for name, family in FAMILIES.items():
        for layout in family.lora.layouts:
            if layout.remedy is None:
                continue
            spelled = {
                layout.prefix + (each.replace(".", "_") if layout.underscores else each)
                for table in layout.names
                for pattern in family.modules[table]
                for each in literal_patterns(pattern)
            }
            assert spelled - comfyui_keys[name].keys(), (name, layout.prefix)
