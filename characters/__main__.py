"""`python -m characters`: characters, pictures and clips from a terminal.

The gateway is `CHARACTERS_URL` (http://127.0.0.1:8080), its key `CHARACTERS_API_KEY`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from characters.client import ApiError, Client
from characters.screen import Screen
from characters.settings import ClientSettings

_PHOTOS = {".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb: 0, 1 when it failed, 2 when it was misused, 130 when it was interrupted."""
    words = _parser().parse_args(argv)
    settings = ClientSettings.from_environment()
    screen = Screen(json_lines=words.json)
    try:
        with Client(words.url or settings.url, settings.api_key) as client:
            _run(words, client, screen)
    except ApiError as error:
        screen.failed(str(error), error.code)
        return 1
    except OSError as error:
        screen.failed(f"{error.filename}: {error.strerror}", "invalid_input")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(words: argparse.Namespace, client: Client, screen: Screen) -> None:
    match words.verb:
        case "create":
            _create(words, client, screen)
        case "image":
            _image(words, client, screen)
        case "video":
            _video(words, client, screen)
        case "erase":
            _finish(client.erase(words.character_id).id, None, client, screen)
        case _:
            _show(words, client, screen)


def _show(words: argparse.Namespace, client: Client, screen: Screen) -> None:
    match words.verb:
        case "list":
            screen.characters(list(client.characters()))
        case "show":
            screen.character(client.character(words.character_id))
        case "cancel":
            screen.jobs([client.cancel(words.job_id)])
        case _:
            screen.jobs(client.jobs(words.limit))


def _image(words: argparse.Namespace, client: Client, screen: Screen) -> None:
    names = ("character_id", "count", "width", "height", "seed", "steps", "format")
    job = client.image(words.prompt, **_given(words, *names))
    _finish(job.id, words.out, client, screen)


def _create(words: argparse.Namespace, client: Client, screen: Screen) -> None:
    found = words.photos
    paths = [
        each for path in found for each in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]
    photos = [path for path in paths if path.suffix.lower() in _PHOTOS]
    if not photos:
        raise ApiError("There is no photo; name some, or a folder of them.", "invalid_input")
    with screen.uploading(len(photos)) as sent:
        sources = client.upload(photos, sent)
    fields = _given(words, "name", "trigger", "steps")
    job = client.create(words.character_id, sources, class_noun=words.class_noun, **fields)
    _finish(job.id, words.out, client, screen)


def _video(words: argparse.Namespace, client: Client, screen: Screen) -> None:
    fields = _given(words, "prompt", "character_id", "frames", "fps", "seed", "format")
    if words.image is not None:
        fields["image"] = client.upload([words.image])[0]
    _finish(client.video(**fields).id, words.out, client, screen)


def _finish(job_id: str, out: Path | None, client: Client, screen: Screen) -> None:
    """Follow a job to its end and fetch what it made."""
    job = client.job(job_id)
    with screen.following(job) as show:
        for job in client.follow(job_id):
            show(job)
    job.checked()
    paths = []
    for output in job.outputs if out is not None else ():
        assert out is not None  # noqa: S101 - the loop's own condition
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{job.id}-{Path(output['key']).name}"
        client.download(output["url"], path)
        paths.append(path)
    screen.done(job, paths)


def _given(words: argparse.Namespace, *names: str) -> dict[str, Any]:
    values = {name: getattr(words, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m characters", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document a line")
    parser.add_argument("--url", help="the gateway's address")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="train a character from photos")
    create.add_argument("character_id")
    create.add_argument("photos", nargs="+", type=Path, help="pictures, or a folder of them")
    create.add_argument("--class", dest="class_noun", default="person", help="woman, dog, …")
    create.add_argument("--name")
    create.add_argument("--trigger")
    create.add_argument("--steps", type=int)
    image = verbs.add_parser("image", help="make pictures")
    image.add_argument("character_id", nargs="?", help="left out: a picture without a character")
    image.add_argument("prompt")
    for name in ("count", "width", "height", "steps", "seed"):
        image.add_argument(f"--{name}", type=int)
    image.add_argument("--format", choices=("png", "jpeg", "webp"))
    video = verbs.add_parser("video", help="make a clip of a picture or a prompt")
    video.add_argument("--image", type=Path)
    video.add_argument("--prompt")
    video.add_argument("--character", dest="character_id")
    for name in ("frames", "seed"):
        video.add_argument(f"--{name}", type=int)
    video.add_argument("--fps", type=float)
    video.add_argument("--format", choices=("mp4", "webm", "webp"))
    for each in (create, image, video):
        each.add_argument("-o", "--out", type=Path, default=Path("out"), help="folder (out)")
    verbs.add_parser("list", help="every character")
    for verb, meaning in (("show", "a character"), ("erase", "remove a character for good")):
        verbs.add_parser(verb, help=meaning).add_argument("character_id")
    jobs = verbs.add_parser("jobs", help="the newest jobs")
    jobs.add_argument("--limit", type=int, default=20)
    verbs.add_parser("cancel", help="end a job").add_argument("job_id")
    for each in verbs.choices.values():  # so that --json may stand behind the verb, too
        each.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
