"""What the Dockerfile and its neighbours promise, as far as it can be read off their text."""

import re
import tomllib
from pathlib import Path

import pytest

from builder.manifest import load

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
SMOKE = (ROOT / ".github" / "smoke.sh").read_text("utf-8")
LOCKS = sorted((ROOT / "builder" / "locks").glob("*.txt"))
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


def test_images_that_are_not_ours_are_pinned_by_digest() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    used = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    foreign = {name for name in used if name not in stages and "${" not in name}
    foreign |= set(re.findall(r"^ +image: (?!runpod-)(\S+)", COMPOSE, re.MULTILINE))
    foreign |= set(re.findall(r"^ +(\S+/\S+:\S+) server", SMOKE, re.MULTILINE))
    assert len(foreign) == 2  # Debian and SeaweedFS
    for name in foreign:
        assert re.fullmatch(r"\S+:[\d.]+(-slim)?@sha256:[0-9a-f]{64}", name), name


def test_the_default_base_is_the_pinned_one() -> None:
    assert re.findall(r"^ARG BASE_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE) == ["debian"]
    assert stage("debian").startswith("FROM debian:12.")


def test_tokens_are_secrets_never_arguments() -> None:
    names = re.findall(r"^\s*ARG (\w+)", DOCKERFILE, re.MULTILINE)
    assert not [name for name in names if re.search("TOKEN|SECRET|KEY|PASSWORD", name)]
    assert "--mount=type=secret,id=hf_token" in DOCKERFILE


@pytest.mark.parametrize("name", ["comfyui", "sd-scripts"])
def test_what_comes_from_git_comes_by_commit(name: str) -> None:
    text = stage(name)
    assert len(re.findall(r"^ARG \w+_COMMIT=[0-9a-f]{40}$", text, re.MULTILINE)) == 1
    assert "checkout -q FETCH_HEAD" in text
    assert DOCKERFILE.count("https://github.com/") == 2


def test_every_install_of_the_image_is_by_hash() -> None:
    installs = re.findall(r"pip install (?:[^&\n]|\\\n)+", DOCKERFILE)
    assert len(installs) == 5
    for install in installs:
        assert "--no-deps --require-hashes" in " ".join(install.split()) or '"$@"' in install
    assert "set -- --no-deps --require-hashes -r /build/torch.txt" in DOCKERFILE


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_is_exact_with_hashes_and_follows_its_short_file(path: Path) -> None:
    text = path.read_text("utf-8")
    packages = re.findall(
        r"^([a-z0-9.-]+)(\[\S+\])?==(\S+) \\\n +--hash=sha256:", text, re.MULTILINE
    )
    lines = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert len(packages) == len(lines) > 0
    pinned = {name: version for name, _, version in packages}
    short = re.findall(
        r"^([\w.-]+)==(\S+)$", path.with_suffix(".in").read_text("utf-8"), re.MULTILINE
    )
    for name, version in short:
        assert pinned[name.lower().replace("_", "-").replace(".", "-")] == version


def test_no_environment_of_the_image_has_a_torch_of_its_own() -> None:
    for name in ("comfyui", "sd-scripts"):
        text = (ROOT / "builder" / "locks" / f"{name}.txt").read_text("utf-8")
        assert not re.search(
            r"^(torch|torchvision|torchaudio|triton|nvidia-[\w-]+)==", text, re.MULTILINE
        )


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
