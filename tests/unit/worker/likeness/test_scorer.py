"""The process that finds faces, with real pictures: what it says, and how it ends."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.faces import OBAMA, PARTLY_HIDDEN, face_picture
from worker.cancel import CancelToken
from worker.errors import Cancelled
from worker.likeness.faces import OTHER_PERSON, SAME_PERSON, centre_of, likeness
from worker.likeness.scorer import NotMeasured, Scorer, ScorerOptions
from worker.likeness.subject import Subject, subject_of

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(ScorerOptions()) as opened:
        yield opened


def child_of(scorer: Scorer) -> int:
    assert scorer._child is not None
    return scorer._child.pid


def gone_within(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not psutil.pid_exists(pid)


def test_pictures_of_one_man_are_closer_than_those_of_two(scorer: Scorer) -> None:
    his = [scorer.look(face_picture(name)).faces[0] for name in (*OBAMA, *PARTLY_HIDDEN)]
    others = [scorer.look(face_picture("biden.jpg")).faces[0]]
    same = [likeness(one.embedding, two.embedding) for one, two in combinations(his, 2)]
    different = [likeness(one.embedding, two.embedding) for one, two in product(his, others)]
    assert min(same) > SAME_PERSON > OTHER_PERSON > max(different)
    centre = centre_of([face.embedding for face in his])
    assert likeness(centre, others[0].embedding) < OTHER_PERSON


def test_the_subject_of_real_photos(scorer: Scorer) -> None:
    names = (*OBAMA, "biden.jpg", *PARTLY_HIDDEN)
    found = subject_of([scorer.look(face_picture(name), thorough=True) for name in names])
    assert isinstance(found, Subject)
    assert sorted(found.faces) == [0, 1, 2, 4, 5]


def test_a_small_face_is_found_where_there_is_no_large_one(scorer: Scorer, tmp_path: Path) -> None:
    canvas = Image.new("RGB", (1024, 1024), "grey")
    with Image.open(face_picture(OBAMA[0])) as photo:
        small = photo.convert("RGB").resize((220, 275))
    canvas.paste(small, (500, 300))
    canvas.save(tmp_path / "far.png")
    (face,) = scorer.look(tmp_path / "far.png").faces
    assert 40 <= face.side <= 80
    assert 500 <= face.box[0] < face.box[2] <= 720


def test_boxes_are_in_pixels_of_the_file(scorer: Scorer, tmp_path: Path) -> None:
    with Image.open(face_picture(OBAMA[0])) as photo:
        photo.resize((photo.width * 4, photo.height * 4)).save(tmp_path / "large.jpg")
    (usual,) = scorer.look(face_picture(OBAMA[0])).faces
    (large,) = scorer.look(tmp_path / "large.jpg").faces
    assert large.side == pytest.approx(usual.side * 4, rel=0.2)
    assert likeness(large.embedding, usual.embedding) > 0.8


def test_no_face_and_no_picture(scorer: Scorer, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "white").save(tmp_path / "white.png")
    assert scorer.look(tmp_path / "white.png").faces == ()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(NotMeasured, match="does not open"):
        scorer.look(tmp_path / "broken.png")
    assert len(scorer.look(face_picture(OBAMA[1])).faces) == 1


def test_a_killed_process_is_started_again(scorer: Scorer) -> None:
    picture = face_picture(OBAMA[0])
    scorer.look(picture)
    os.kill(child_of(scorer), signal.SIGKILL)
    assert len(scorer.look(picture).faces) == 1


def test_a_process_that_hangs_costs_a_deadline() -> None:
    picture = face_picture(OBAMA[0])
    with Scorer(ScorerOptions(timeout_s=10)) as scorer:
        scorer.look(picture)
        child = child_of(scorer)
        os.kill(child, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(NotMeasured, match="longer than 10 s"):
            scorer.look(picture)
        assert time.monotonic() - begun < 20
        assert not psutil.pid_exists(child)
        assert len(scorer.look(picture).faces) == 1


def test_a_cancel_ends_the_wait_and_leaves_the_next_answer_right() -> None:
    picture = face_picture(OBAMA[0])
    token = CancelToken()
    with Scorer(ScorerOptions()) as scorer:
        threading.Timer(0.2, token.cancel).start()
        with pytest.raises(Cancelled):
            scorer.look(picture, check_cancelled=token.check)  # the start alone takes longer
        assert len(scorer.look(face_picture("biden.jpg")).faces) == 1


def test_it_ends_when_idle_and_comes_again() -> None:
    picture = face_picture(OBAMA[0])
    with Scorer(ScorerOptions(idle_s=0.2)) as scorer:
        scorer.look(picture)
        child = child_of(scorer)
        assert gone_within(child, 10)
        assert len(scorer.look(picture).faces) == 1
        assert child_of(scorer) != child


def test_its_memory_has_an_end(scorer: Scorer) -> None:
    for name in (*OBAMA, "32bit.png"):
        scorer.look(face_picture(name), thorough=True)
    assert psutil.Process(child_of(scorer)).memory_info().rss < 250_000_000


def test_missing_parts_are_said(tmp_path: Path) -> None:
    with Scorer(ScorerOptions(enabled=False)) as scorer:
        assert scorer.version is None
        with pytest.raises(NotMeasured, match="switched off"):
            scorer.look(tmp_path / "any.png")
