"""Pictures measured, and the most alike chosen: real faces, shown by the stand-in by seed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from local.s3 import S3Server
from lora_registry.identity import FaceIdentity
from tests.faces import biden_photo, face_picture, jpeg, obama_photos, side_by_side
from tests.integration.worker_harness import WorkerHarness, fetched, graph_of, picture, settings_for
from worker.likeness.faces import centre_of
from worker.likeness.scorer import NAME
from worker.service import Worker

pytestmark = pytest.mark.process

JOB = {"task": "image", "prompt": "portrait", "steps": 1, "width": 512, "height": 512}


class Faces(WorkerHarness):
    """A worker whose stand-in shows given pictures."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        super().__init__(worker, folder)
        self.shown = folder / "shown.json"
        self.files: dict[str, Path] = {}

    def person(self, name: str, photos: Sequence[bytes], seed: int) -> str:
        """A character with the face of these photos; the name of its LoRA's file."""
        version = self.register(name, seed=seed)
        sights = [self.resources.scorer.look(self.file(body)) for body in photos]
        identity = FaceIdentity(
            scorer=NAME,
            scorer_version=self.resources.scorer.version or "",
            centre=centre_of([sight.faces[0].embedding for sight in sights]),
            photos=len(photos),
        )
        self.resources.identities.put(name, version, identity)
        return self.resources.registry.version(name, version).sha256

    def file(self, body: bytes) -> Path:
        """A picture on disk."""
        path = self.folder / f"shown-{len(self.files)}.jpg"
        path.write_bytes(body)
        self.files[path.name] = path
        return path

    def show(self, loras: Sequence[str], by_seed: Mapping[int, bytes]) -> None:
        """What the stand-in shows of these LoRAs."""
        rules = [
            {"loras": list(loras), "seeds": [seed], "picture": str(self.file(body))}
            for seed, body in by_seed.items()
        ]
        self.shown.write_text(json.dumps(rules))


@pytest.fixture(scope="module")
def opened(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    folder = tmp_path_factory.mktemp("likeness")
    (folder / "shown.json").write_text("[]")
    settings = settings_for(
        s3, folder, LIKENESS="auto", COMFYUI_ARGS=f"--stand-in-shown {folder / 'shown.json'}"
    )
    with Worker(settings) as worker:
        worker.wait_ready()
        yield Faces(worker, folder)


@pytest.fixture
def faces(opened: Faces) -> Iterator[Faces]:
    opened.shown.write_text("[]")
    yield opened
    assert opened.leftovers() == []


@pytest.fixture(scope="module")
def barack(opened: Faces) -> str:
    return opened.person("barack", obama_photos(3), 1)


@pytest.fixture(scope="module")
def joe(opened: Faces) -> str:
    return opened.person("joe", [biden_photo()], 2)


def portrait(name: str, box: tuple[int, int, int, int]) -> Image.Image:
    """A face in the middle of a square, so that two can be blended."""
    with Image.open(face_picture(name)) as image:
        return image.convert("RGB").crop(box).resize((512, 512))


def mixed(share: float) -> bytes:
    """A face between two people; 0 is the first one's."""
    first = portrait("obama.jpg", (252, 34, 748, 530))
    second = portrait("biden.jpg", (265, 43, 935, 713))
    return jpeg(Image.blend(first, second, share))


def test_a_picture_says_how_alike_it_is(faces: Faces, barack: str) -> None:
    faces.show([barack], {1: obama_photos(4)[3], 2: mixed(1.0)})
    job = JOB | {"character_id": "barack", "likeness": True}
    (own,) = faces.run(job | {"seed": 1})["outputs"]
    (other,) = faces.run(job | {"seed": 2})["outputs"]
    (none,) = faces.run(job | {"seed": 3})["outputs"]
    assert own["likeness"]["score"] > 0.55
    assert other["likeness"]["score"] < 0.36
    assert none["likeness"] == {"reason": "no face is found"}
    manifest = json.loads(fetched(faces.run(job | {"seed": 1})["manifest"]["url"]))
    assert manifest["outputs"][0]["likeness"] == own["likeness"]


@pytest.mark.usefixtures("barack")
def test_a_job_that_does_not_ask_is_not_measured(faces: Faces) -> None:
    faces.resources.scorer.close()
    result = faces.run(JOB | {"character_id": "barack"})
    assert "likeness" not in result["outputs"][0]
    assert faces.resources.scorer._child is None


def test_the_most_alike_of_several_are_delivered(faces: Faces, barack: str) -> None:
    shown = {7: mixed(1.0), 8: mixed(0.0), 9: mixed(0.5), 10: obama_photos(4)[3]}
    faces.show([barack], shown)
    before = faces.prompts_run()
    job = JOB | {"character_id": "barack", "best_of": 4, "count": 2, "seed": 7}
    result = faces.run(job)
    assert faces.prompts_run() - before == 4
    assert [output["seed"] for output in result["outputs"]] == [8, 10]
    first, second = (output["likeness"]["score"] for output in result["outputs"])
    assert first >= second > 0.5
    selection = result["selection"]
    assert [each["seed"] for each in selection["candidates"]] == [7, 8, 9, 10]
    assert [each["delivered"] for each in selection["candidates"]] == [False, True, False, True]
    scores = [each["likeness"]["score"] for each in selection["candidates"]]
    assert scores[1] > scores[2] > scores[0]
    assert graph_of(picture(result["outputs"][0]["url"]))["3"]["inputs"]["seed"] == 8
    manifest = json.loads(fetched(result["manifest"]["url"]))
    assert manifest["selection"] == selection
    folder = result["manifest"]["key"].rsplit("/", 1)[0]
    assert len(faces.keys(f"{folder}/")) == 3  # two pictures and the manifest


def test_further_seeds_are_tried_until_one_is_alike(faces: Faces, barack: str) -> None:
    faces.show([barack], {4: mixed(1.0), 5: obama_photos(4)[3], 6: mixed(1.0)})
    before = faces.prompts_run()
    result = faces.run(
        JOB | {"character_id": "barack", "min_likeness": 0.5, "best_of": 8, "seed": 4}
    )
    assert faces.prompts_run() - before == 2
    assert result["outputs"][0]["seed"] == 5
    assert (result["selection"]["made"], result["selection"]["passed"]) == (2, 1)
    assert "warnings" not in result


def test_if_none_is_alike_enough_the_answer_says_so(faces: Faces, barack: str) -> None:
    faces.show([barack], {0: mixed(1.0), 1: mixed(0.5), 2: mixed(1.0), 3: mixed(1.0)})
    result = faces.run(JOB | {"character_id": "barack", "min_likeness": 0.9, "seed": 0})
    (warning,) = result["warnings"]
    assert warning.startswith("0 of 4 pictures reach min_likeness 0.9; the most alike has 0.")
    assert result["outputs"][0]["seed"] == 1
    assert result["selection"]["passed"] == 0


def test_each_of_two_people_must_be_in_the_picture(faces: Faces, barack: str, joe: str) -> None:
    photos = obama_photos(4)
    both = side_by_side(photos[0], biden_photo())
    twice = side_by_side(photos[0], photos[3])
    faces.show([barack, joe], {1: both, 2: twice, 3: side_by_side(mixed(0.5), mixed(0.5))})
    job = JOB | {
        "width": 1024,
        "characters": [{"character_id": "barack"}, {"character_id": "joe"}],
        "likeness": True,
    }
    good, double, mixture = (faces.run(job | {"seed": seed})["outputs"][0] for seed in (1, 2, 3))
    assert good["likeness"]["characters"].keys() == {"barack", "joe"}
    assert good["likeness"]["score"] > 0.5
    assert double["likeness"]["score"] < 0.3
    assert mixture["likeness"]["score"] < good["likeness"]["score"]


def test_a_character_without_a_face_is_not_chosen(faces: Faces) -> None:
    faces.register("vase", seed=5)
    before = faces.prompts_run()
    result = faces.run(JOB | {"character_id": "vase", "best_of": 6, "count": 2})
    assert faces.prompts_run() - before == 1
    assert len(result["outputs"]) == 2
    assert "selection" not in result
    assert "no face of 'vase' is kept" in result["warnings"][0]
    assert "not measured" in result["outputs"][0]["likeness"]["reason"]


def test_a_face_finder_that_is_gone_costs_the_score_only(
    faces: Faces, barack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces.show([barack], {1: obama_photos(1)[0]})
    faces.resources.scorer.close()
    monkeypatch.setattr(
        "worker.likeness.scorer.Scorer._running",
        lambda _self: (_ for _ in ()).throw(AssertionError("not asked")),
    )
    monkeypatch.setattr(faces.resources.scorer, "lacking", "dlib-bin not installed")
    result: dict[str, Any] = faces.run(JOB | {"character_id": "barack", "likeness": True})
    assert result["outputs"][0]["likeness"] == {"reason": "not measured: dlib-bin not installed"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"best_of": 4}, "need a character"),
        ({"likeness": True}, "need a character"),
        ({"character_id": "barack", "best_of": 2, "count": 3}, "less than count"),
        ({"character_id": "barack", "best_of": 17}, "from 2 to 16"),
    ],
)
def test_what_cannot_be_chosen_is_refused(faces: Faces, fields: dict[str, Any], field: str) -> None:
    result = faces.run(JOB | fields)
    assert result["code"] == "invalid_input"
    assert field in result["error"]
