import json
import re
import tomllib
from pathlib import Path

import pytest

from worker.contract import parse_job
from workflows.library import load_library

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    ]


@pytest.mark.parametrize("block", [block for _, block in blocks("json")])
def test_every_job_in_the_docs_is_a_valid_job(block: str) -> None:
    parse_job(json.loads(block)["input"])


def test_readme_has_an_example_of_every_task() -> None:
    tasks = {json.loads(block)["input"]["task"] for _, block in blocks("json")}
    assert tasks == {"image", "video", "workflow", "train", "characters", "health"}


@pytest.mark.parametrize("block", [block for _, block in blocks("toml")])
def test_every_toml_in_the_docs_parses(block: str) -> None:
    assert tomllib.loads(block)


def test_every_model_that_a_workflow_names_is_in_the_manifest() -> None:
    manifest = tomllib.loads((ROOT / "builder" / "models.toml").read_text())
    known = {model["name"] for model in manifest["model"]}
    for folder in (ROOT / "workflows", ROOT / "docs" / "drop-ins"):
        for workflow in load_library(folder).values():
            assert set(workflow.models) <= known, workflow.name


def test_every_file_that_the_map_names_exists() -> None:
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", ARCHITECTURE.read_text()))
    named.discard("settings.py")
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_map_has_every_package_and_the_readme_has_the_map() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    table = ARCHITECTURE.read_text().partition("## The path of a picture")[0]
    assert packages <= set(re.findall(r"^\| `([a-z_]+)/`", table, re.MULTILINE))
    assert "docs/architecture.md" in (ROOT / "README.md").read_text()
