"""Finding and comparing faces: seconds a picture, memory, and how well people are told apart.

    python -m benchmarks.likeness [--pictures FOLDER]

Without a folder the pictures are those that the tests use. A folder has one sub-folder a person;
the table is then of all of them. Limits: 20 photos judged in 10 s on one core, a picture scored in
0.4 s, 24 gate pictures in 10 s, 250 MB; every pair of one person closer than every pair of two.
"""

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.faces import OBAMA, PARTLY_HIDDEN, face_picture
from worker.likeness.faces import Sight, likeness
from worker.likeness.scorer import Scorer, ScorerOptions
from worker.likeness.subject import subject_of

PHOTOS = 20
GATE_PICTURES = 24


def people(folder: Path | None) -> dict[str, list[Path]]:
    """Pictures by person."""
    if folder is None:
        obama = [face_picture(name) for name in (*OBAMA, *PARTLY_HIDDEN)]
        return {"obama": obama, "biden": [face_picture("biden.jpg")]}
    return {
        one.name: sorted(path for path in one.iterdir() if path.is_file())
        for one in sorted(folder.iterdir())
        if one.is_dir()
    }


def timed(scorer: Scorer, paths: Sequence[Path], count: int, *, thorough: bool) -> dict[str, float]:
    """Seconds for so many pictures, by the clock and of one core."""
    chosen = list(itertools.islice(itertools.cycle(paths), count))
    begun, used = time.monotonic(), cpu_s()
    sights = [scorer.look(path, thorough=thorough) for path in chosen]
    if thorough:
        subject_of(sights)
    return {
        "pictures": count,
        "s": round(time.monotonic() - begun, 2),
        "cpu_s": round(cpu_s() - used, 2),
    }


def cpu_s() -> float:
    """Seconds of a core that this process and its children have used so far."""
    processes = [psutil.Process(), *psutil.Process().children()]
    return sum(times.user + times.system for times in (one.cpu_times() for one in processes))


def distances(sights: dict[str, list[Sight]]) -> dict[str, float | None]:
    """The least alike pair of one person, and the most alike pair of two."""
    faces = [
        (name, sight.faces[0].embedding)
        for name, found in sights.items()
        for sight in found
        if sight.faces
    ]
    pairs = list(itertools.combinations(faces, 2))
    same = [likeness(one[1], two[1]) for one, two in pairs if one[0] == two[0]]
    different = [likeness(one[1], two[1]) for one, two in pairs if one[0] != two[0]]
    return {
        "faces": len(faces),
        "least_likeness_of_one_person": round(min(same), 3) if same else None,
        "most_likeness_of_two": round(max(different), 3) if different else None,
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    shown = people(parser.parse_args().pictures)
    paths = [path for found in shown.values() for path in found]
    with Scorer(ScorerOptions()) as scorer:
        begun = time.monotonic()
        scorer.look(paths[0])
        started = time.monotonic() - begun
        sights = {name: [scorer.look(path) for path in found] for name, found in shown.items()}
        found = {
            "start_and_first_picture_s": round(started, 2),
            "photos_judged": timed(scorer, paths, PHOTOS, thorough=True),
            "gate_pictures": timed(scorer, paths, GATE_PICTURES, thorough=False),
            "scorer_peak_rss_mb": peak_rss_mb(),
            **distances(sights),
        }
    print(json.dumps(found, indent=1))


def peak_rss_mb() -> float:
    """The largest of our children by its own account."""
    peaks = []
    for child in psutil.Process().children():
        status = Path(f"/proc/{child.pid}/status").read_text()
        (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peaks.append(int(peak.split()[1]) / 1000)
    return round(max(peaks))


if __name__ == "__main__":
    main()
