"""Whom a set of photos shows, with made-up faces in two dimensions."""

from worker.likeness.faces import Face, Sight
from worker.likeness.subject import NoPerson, Subject, TwoPeople, subject_of

MIRA, TOM, ANN = (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)


def sight(*people: tuple[float, float], turn: float = 0.0, side: int = 100) -> Sight:
    """A photo of these people, each a little off their usual place."""
    return Sight(
        1000,
        1000,
        tuple(Face((0, 0, side, side), (x + turn, y - turn)) for x, y in people),
    )


def test_the_person_who_recurs_is_the_subject() -> None:
    sights = [sight(TOM, MIRA), sight(MIRA, turn=0.1), sight(ANN), None, sight(MIRA, ANN), sight()]
    found = subject_of(sights)
    assert isinstance(found, Subject)
    assert found.faces == {0: 1, 1: 0, 4: 0}
    assert found.likenesses[0] > 0.9
    assert found.typical == found.likenesses[0]


def test_two_people_about_equally_often_are_no_subject() -> None:
    found = subject_of([sight(MIRA, TOM)] * 4 + [sight(MIRA)])
    assert isinstance(found, TwoPeople)
    assert (len(found.first), len(found.second)) == (5, 4)
    assert isinstance(subject_of([sight(MIRA, TOM)] * 3 + [sight(MIRA)] * 2), Subject)


def test_a_pet_and_a_crowd_are_no_person() -> None:
    assert isinstance(subject_of([sight(), sight(), sight(MIRA)]), NoPerson)
    assert isinstance(subject_of([]), NoPerson)
    strangers = [sight((x, 2.0 * x)) for x in range(5)]
    found = subject_of(strangers)
    assert isinstance(found, NoPerson)
    assert "nobody" in found.reason


def test_faces_too_small_to_judge_do_not_say_who_there_is() -> None:
    assert isinstance(subject_of([sight(MIRA, side=20)] * 3), NoPerson)
    found = subject_of([sight(MIRA)] * 3 + [sight(MIRA, side=20)])
    assert isinstance(found, Subject)
    assert found.faces == {0: 0, 1: 0, 2: 0, 3: 0}


def test_one_photo_has_nothing_to_be_like() -> None:
    found = subject_of([sight(MIRA)])
    assert isinstance(found, Subject)
    assert found.likenesses == {}
    assert found.typical is None
