"""`python -m characters` as a person runs it, against the whole local stack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local.stack import ROOT
from tests.integration.gateway.conftest import GatewayHarness
from tests.integration.gateway.test_gateway import picture

pytestmark = pytest.mark.process


def characters(api: GatewayHarness, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "characters", "--url", api.gateway.url, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


def test_from_photos_to_pictures_and_a_clip(api: GatewayHarness, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes(picture(number * 29))
    out = tmp_path / "out"
    words = ["--class", "woman", "--steps", "20", "-o", str(out)]
    made = characters(api, "create", "cli", str(photos), *words)
    assert any(line.endswith("previews.png") for line in made.splitlines())
    small = ["--width", "256", "--height", "256", "--steps", "2"]
    pictures = characters(
        api, "image", "cli", "portrait of {trigger}", "--count", "2", *small, "-o", str(out)
    )
    paths = [Path(line) for line in pictures.splitlines()]
    assert len(paths) == 2
    assert all(path.stat().st_size > 1000 for path in paths)
    clip = characters(api, "video", "--image", str(paths[0]), "--frames", "4", "-o", str(out))
    assert any(line.endswith(".mp4") for line in clip.splitlines())
    assert "cli\t" in characters(api, "list")
    assert json.loads(characters(api, "show", "cli", "--json"))["character"]["trigger"]
    assert len(characters(api, "jobs", "--json").splitlines()) >= 3


def test_what_fails_is_a_sentence_and_a_status(api: GatewayHarness, tmp_path: Path) -> None:
    said = characters(api, "image", "nobody", "portrait", "-o", str(tmp_path), status=1)
    assert "nobody" in said
    assert json.loads(characters(api, "show", "nobody", "--json", status=1))["code"] == (
        "character_not_found"
    )
    characters(api, "create", "x", str(tmp_path), status=1)
