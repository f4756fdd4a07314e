"""Trainings of real faces: who is the subject, who is left out, what is kept of the face."""

import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.faces import biden_photo, obama_photos, side_by_side
from tests.integration.training.training_harness import TrainingHarness, photo
from tests.integration.worker_harness import picture
from worker.likeness.scorer import ScorerOptions

pytestmark = pytest.mark.process


def sources(harness: TrainingHarness, photos: list[bytes]) -> list[dict[str, str]]:
    keys = [f"inputs/faces/{number}.jpg" for number in range(len(photos))]
    for key, body in zip(keys, photos, strict=True):
        harness.put(key, body, "image/jpeg")
    return [{"key": key} for key in keys]


def codes(described: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in described["reasons"]]


def test_a_stranger_is_left_out_and_a_group_photo_cropped(faces: TrainingHarness) -> None:
    photos = obama_photos(6)
    group = side_by_side(photos[0], biden_photo())
    images = sources(faces, [*photos[:5], biden_photo(), photo(1), group])
    result = faces.run(faces.job("barack", images=images), job_id="barack-1")
    assert "error" not in result, result
    described = result["dataset"]["photos"]
    assert [each["verdict"] for each in described[5:7]] == ["rejected", "rejected"]
    assert (codes(described[5]), codes(described[6])) == (["another_person"], ["no_face"])
    assert described[5]["likeness"] < 0.36
    assert described[7]["faces"] == 2
    left, top, right, _ = described[7]["cropped"]
    assert right - left < Image.open(io.BytesIO(group)).width
    assert (left, top) == (0, 0)
    assert all(each["likeness"] > 0.5 and each["face_side"] > 80 for each in described[:5])

    subject = result["dataset"]["subject"]
    assert subject["photos"] == 6
    assert 0.6 < subject["likeness"] < 0.9
    identity = faces.resources.identities.get("barack", result["character"]["version"])
    assert identity is not None
    assert (identity.typical, len(identity.centre)) == (subject["likeness"], 128)
    (key,) = [key for key in faces.keys("characters/barack/") if "identity" in key]
    assert "centre" in json.loads(faces.resources.store.get(key).body)
    report = faces.resources.store.get(result["manifest"]["key"]).body
    assert b"centre" not in report


def test_what_is_cropped_away_is_not_trained_on(faces: TrainingHarness) -> None:
    photos = obama_photos(5)
    group = side_by_side(photos[0], biden_photo())
    images = sources(faces, [*photos, group])
    result = faces.run(faces.job("uncropped", images=images, crop="off"))
    described = result["dataset"]["photos"][5]
    assert codes(described) == ["other_people"]
    assert "cropped" not in described


def test_a_set_of_two_people_is_refused_with_their_faces(faces: TrainingHarness) -> None:
    photos = [*obama_photos(3), *(biden_photo(mirrored=turned) for turned in (False, True))]
    photos.append(side_by_side(biden_photo(), photos[0]))
    photos.append(side_by_side(photos[1], biden_photo(mirrored=True)))
    result = faces.run(faces.job("two", images=sources(faces, photos)), job_id="two-1")
    assert result["code"] == "dataset_rejected"
    assert "two people" in result["error"]
    assert result["field"] == "images"
    sheet = picture(result["details"]["sheet"]["url"])
    assert sheet.size == (1280, 320)
    assert faces.keys("characters/two/") == ["characters/two/training/two-1.people.png"]


def test_a_thing_is_trained_without_likeness(faces: TrainingHarness) -> None:
    result = faces.run(faces.job("vase"))
    assert result["dataset"]["not_measured"].startswith("the subject is no person: 0 of 6")
    assert "subject" not in result["dataset"]
    assert all(each["verdict"] != "rejected" for each in result["dataset"]["photos"])
    assert faces.resources.identities.get("vase", result["character"]["version"]) is None


def test_a_face_finder_that_cannot_run_costs_the_likeness_only(
    faces: TrainingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces.resources.scorer, "_options", ScorerOptions(python="/bin/false"))
    faces.resources.scorer.close()
    result = faces.run(faces.job("unmeasured"))
    assert result["dataset"]["not_measured"] == "the face finder ended unexpectedly"
    assert result["character"]["active"]
