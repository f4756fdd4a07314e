"""What the Dockerfile and its neighbours promise, as far as it can be read off their text."""

import re
import tomllib
from pathlib import Path

import pytest

from builder.manifest import load

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
BAKE = (ROOT / "docker-bake.hcl").read_text("utf-8")
ACTIONS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def stage(name: str) -> str:
    match = re.search(
        rf"^FROM \S+ AS {name}$.*?(?=^FROM |\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE
    )
    assert match, name
    return match.group()


def copied_modules(text: str) -> set[str]:
    return set(re.findall(r"builder/(\w+)\.py", text))


def imported_modules(module: str) -> set[str]:
    source = (ROOT / "builder" / f"{module}.py").read_text("utf-8")
    return set(re.findall(r"^from builder\.(\w+) import", source, re.MULTILINE))


@pytest.mark.parametrize("name", ["fetcher", "code"])
def test_a_stage_copies_all_that_its_modules_import(name: str) -> None:
    modules = copied_modules(stage(name))
    for module in modules:
        assert imported_modules(module) <= modules, module


def test_nothing_that_buildah_or_an_offline_buildkit_cannot_do() -> None:
    assert "# syntax" not in DOCKERFILE
    assert "--link" not in DOCKERFILE
    assert "<<" not in DOCKERFILE
    assert not re.search(r"COPY --from=\$", DOCKERFILE)


def test_base_image_is_pinned_by_digest() -> None:
    assert re.search(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_tokens_are_secrets_never_arguments() -> None:
    names = re.findall(r"^\s*ARG (\w+)", DOCKERFILE, re.MULTILINE)
    assert not [name for name in names if re.search("TOKEN|SECRET|KEY|PASSWORD", name)]
    assert "--mount=type=secret,id=hf_token" in DOCKERFILE


def test_comfyui_comes_by_comfy_cli_and_from_one_stage() -> None:
    assert "comfy --skip-prompt" in stage("comfyui")
    assert DOCKERFILE.count("github.com") == stage("sd-scripts").count("github.com") == 1


def test_constraints_are_exact() -> None:
    for name in ("comfyui-constraints.txt", "sd-scripts-requirements.txt"):
        lines = (ROOT / "builder" / name).read_text("utf-8").splitlines()
        pinned = [line for line in lines if line and not line.startswith("#")]
        assert pinned
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned), name


def test_every_target_of_the_manifest_can_be_baked() -> None:
    targets = set(re.findall(r'^target "(worker[\w-]*)"', BAKE, re.MULTILINE))
    assert {target for model in load() for target in model.targets} <= targets
    assert targets == {"worker", "worker-sdxl", "worker-train", "worker-full", "worker-cpu"}


def test_every_variant_that_is_baked_is_a_stage() -> None:
    for variant in re.findall(r'VARIANT\s*=\s*"(\w+)"', BAKE):
        assert stage(f"variant-{variant}")


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.name)
def test_actions_are_pinned_by_digest(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text("utf-8"))
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


def test_python_of_the_image_is_one_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["tool"]["mypy"]["python_version"] == "3.11"
    assert "debian:12" in DOCKERFILE  # whose python3 is 3.11
