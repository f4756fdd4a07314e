"""Families as folders: a new one is a folder, and what is wrong with one is said with its name."""

import json
from pathlib import Path
from typing import Any

import pytest

from families.errors import FamilyInvalid, FamilyNotFound
from families.family import literal_patterns
from families.library import load_families
from families.recognition import Recogniser
from tests.loras import FAMILIES
from workflows.library import load

ROOT = Path(__file__).resolve().parents[3]
DROP_INS = ROOT / "docs" / "drop-ins"
TOML = """
title = "Aurora 9"
stated = ["aurora"]

[licence]
name = "Apache-2.0"
commercial = true

[[lora.layouts]]
name = "comfyui"
prefix = "diffusion_model."
names = ["native"]
"""
MODULES = {"native": {"trunk.{0-2,7}.mix": [96, 48]}}


def folder(tmp_path: Path, toml: str = TOML, modules: Any = MODULES) -> Path:
    home = tmp_path / "aurora"
    home.mkdir()
    (home / "family.toml").write_text(toml)
    (home / "modules.json").write_text(modules if isinstance(modules, str) else json.dumps(modules))
    return tmp_path


def test_a_new_family_is_a_folder_and_no_line_of_python(tmp_path: Path) -> None:
    recogniser = Recogniser(load_families(folder(tmp_path)))
    name = "diffusion_model.trunk.7.mix"
    shapes = {f"{name}.lora_A.weight": (8, 48), f"{name}.lora_B.weight": (96, 8)}
    found = recogniser.facts(shapes, {}, size=1)
    assert (found.base_model, found.format, found.rank) == ("aurora", "comfyui", 8)


def test_patterns_count() -> None:
    assert list(literal_patterns("a.{0-1,3}.b{2}")) == ["a.0.b2", "a.1.b2", "a.3.b2"]
    assert list(literal_patterns("plain")) == ["plain"]


@pytest.mark.parametrize(
    ("toml", "modules", "message"),
    [
        ("title = ", MODULES, "Family 'aurora': Invalid"),
        (TOML + "colour = 1", MODULES, "lora.layouts.0.colour: Extra inputs"),
        (TOML, "{", "Family 'aurora': Expecting"),
        (TOML, {"other": {}}, "names table 'native', which modules.json lacks"),
        (TOML, {"native": {"a.{0-99999}": [1, 2]}}, "must name 1 to 20000 modules"),
        (TOML, {"native": {"a.{0-9999}.{0-9999}": [1, 2]}}, "must name 1 to 20000 modules"),
        (TOML, {"native": {"a.{3-1}": [1, 2]}}, "must name 1 to 20000 modules"),
        (TOML, {"native": {"a.{x}": [1, 2]}}, "must name 1 to 20000 modules"),
        (TOML, {"native": {"a": [0, 2]}}, "greater than or equal to 1"),
        (TOML.replace('"aurora"', '"("'), MODULES, "is no regular expression"),
    ],
)
def test_what_is_wrong_is_said_with_the_folders_name(
    tmp_path: Path, toml: str, modules: Any, message: str
) -> None:
    with pytest.raises(FamilyInvalid, match="Family 'aurora'") as caught:
        load_families(folder(tmp_path, toml, modules))
    assert message in str(caught.value)


def test_a_folder_without_its_modules_is_refused(tmp_path: Path) -> None:
    (folder(tmp_path) / "aurora" / "modules.json").unlink()
    with pytest.raises(FamilyInvalid, match=r"No such file or directory: modules.json"):
        load_families(tmp_path)


def test_an_unknown_family_is_said_with_those_there_are() -> None:
    with pytest.raises(FamilyNotFound, match=r"no family 'none'.*z_image"):
        FAMILIES["none"]


@pytest.mark.parametrize("name", sorted(path.name for path in DROP_INS.iterdir()))
def test_a_drop_in_is_for_a_family_that_there_is(name: str) -> None:
    workflow = load(DROP_INS / name)
    assert workflow.base_model in FAMILIES or not workflow.loras
