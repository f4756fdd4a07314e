import hashlib
import shutil
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.specs import small_spec
from worker.cancel import CancelToken
from worker.contract_fields import Photo, Source
from worker.errors import Cancelled, DatasetRejected, SourceForbidden, SourceUnreachable
from worker.pictures import PictureOptions, Pictures
from worker.training.captions import TemplateCaptioner
from worker.training.dataset import (
    digest_of,
    judge_photos,
    manifest,
    require_enough,
    restored,
    write_captions,
)
from worker.training.fetching import Check, Fetched, Limits, OnShare, fetch_archive, fetch_photos
from worker.training.kohya_command import dataset_toml
from worker.training.trainer import PreparedPhoto

LIMITS = Limits(resolution=256, photo_bytes=400_000, archive_bytes=9_000_000)
PICTURES = Pictures(PictureOptions(max_pixels=10**6))
WORDS = ("mrzkqv", "person")


def picture(seed: int, size: tuple[int, int] = (420, 360), mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 255, (6, 7, 3), dtype=np.uint8)).resize(size)
    grain = random.normal(0, 20, (size[1], size[0], 1))
    pixels = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


class FolderReader:
    """Keys are files of a folder; the seam of `worker.sources`, without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.active = 0
        self.most_at_once = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(3, timeout=5)
        self.meet = False

    def save(
        self,
        source: Source,
        path: Path,
        *,
        field: str,
        max_bytes: int,
        check_cancelled: Check | None = None,
        on_share: OnShare | None = None,  # noqa: ARG002 - the protocol's
    ) -> int:
        if check_cancelled is not None:
            check_cancelled()
        if self.meet:
            self._together.wait()
        name = source.key or ""
        if name == "forbidden":
            raise SourceForbidden(f"{field}: no.", field=field)
        origin = self.folder / name
        if not origin.is_file() or origin.stat().st_size > max_bytes:
            raise SourceUnreachable(f"{field}: there is no object {name!r}.", field=field)
        shutil.copyfile(origin, path)
        return path.stat().st_size


@pytest.fixture
def reader(tmp_path: Path) -> FolderReader:
    folder = tmp_path / "bucket"
    folder.mkdir()
    return FolderReader(folder)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    incoming, photos = tmp_path / "incoming", tmp_path / "photos"
    incoming.mkdir()
    photos.mkdir()
    return incoming, photos


def files(folder: Path, *images: Image.Image) -> list[Fetched]:
    fetched = []
    for index, image in enumerate(images):
        path = folder / f"{index:03d}"
        image.save(path, "PNG")
        fetched.append(Fetched(index, f"images.{index}", path))
    return fetched


def nothing() -> None:
    """No cancel."""


def ignore(_share: float) -> None:
    """Nobody looks at the progress."""


def test_photos_are_fetched_side_by_side(
    reader: FolderReader, folders: tuple[Path, Path], pool: ThreadPoolExecutor
) -> None:
    for number in range(3):
        (reader.folder / f"{number}").write_bytes(bytes([number]))
    reader.meet = True  # passes only when three are under way at once
    photos = [Photo(key=f"{number}", caption=f"c{number}") for number in range(3)]
    fetched = fetch_photos(photos, reader, folders[0], LIMITS, pool, nothing).photos
    assert [photo.path.read_bytes() for photo in fetched if photo.path] == [b"\0", b"\1", b"\2"]
    assert [photo.caption for photo in fetched] == ["c0", "c1", "c2"]


def test_a_photo_that_cannot_be_had_does_not_end_the_others(
    reader: FolderReader, folders: tuple[Path, Path], pool: ThreadPoolExecutor
) -> None:
    (reader.folder / "here").write_bytes(b"x")
    photos = [Photo(key="gone"), Photo(key="here")]
    gone, here = fetch_photos(photos, reader, folders[0], LIMITS, pool, nothing).photos
    assert gone.problem is not None
    assert gone.problem.code == "unreachable"
    assert here.path is not None


def test_a_forbidden_source_ends_the_job(
    reader: FolderReader, folders: tuple[Path, Path], pool: ThreadPoolExecutor
) -> None:
    with pytest.raises(SourceForbidden):
        fetch_photos([Photo(key="forbidden")], reader, folders[0], LIMITS, pool, nothing)


def test_an_archive_with_captions(reader: FolderReader, folders: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(reader.folder / "set.zip", "w") as opened:
        opened.writestr("a.png", b"small")
        opened.writestr("a.txt", "on a hill")
        opened.writestr("b.png", b"x" * 500_000)
    a, b = fetch_archive(Source(key="set.zip"), reader, folders[0], LIMITS, nothing).photos
    assert (a.name, a.caption) == ("a.png", "on a hill")
    assert b.problem is not None
    assert b.problem.code == "too_large"
    assert [path.name for path in folders[0].iterdir()] == ["000"]


def test_every_photo_gets_its_verdict(folders: tuple[Path, Path]) -> None:
    incoming, out = folders
    fetched = files(incoming, picture(0), picture(0), picture(1, (200, 400)), picture(2))
    broken = incoming / "broken"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    gone = Fetched(5, "images.5", None)
    judged = judge_photos(
        [*fetched, Fetched(4, "images.4", broken), gone], out, LIMITS, PICTURES, nothing, ignore
    )
    kinds = [
        (verdict.kind, [reason.code for reason in verdict.reasons]) for verdict in judged.verdicts
    ]
    assert kinds == [
        ("kept", []),
        ("rejected", ["duplicate"]),
        ("rejected", ["too_small"]),
        ("kept", []),
        ("rejected", ["unreadable"]),
        ("rejected", ["unreadable"]),
    ]
    sentences = [verdict.reasons[0].message for verdict in judged.verdicts[4:]]
    assert sentences == ["The picture is truncated or damaged.", "It could not be read."]
    assert sorted(path.name for path in out.iterdir()) == ["000.png", "003.png"]
    assert not list(incoming.iterdir())


def test_photos_become_upright_opaque_rgb_pngs(folders: tuple[Path, Path]) -> None:
    incoming, out = folders
    turned = picture(1)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(incoming / "0", "JPEG", exif=exif)
    clear = picture(2, mode="RGBA")
    clear.putalpha(0)
    clear.save(incoming / "1", "WEBP", lossless=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture(3).save(incoming / "2", "PNG", icc_profile=profile)
    picture(4, mode="L").save(incoming / "3", "PNG")
    fetched = [Fetched(n, str(n), incoming / str(n)) for n in range(4)]
    judged = judge_photos(fetched, out, LIMITS, PICTURES, nothing, ignore)
    assert (judged.photos[0].width, judged.photos[0].height) == (360, 420)
    for photo in judged.photos:
        with Image.open(photo.path) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            assert not image.getexif()
            assert "icc_profile" not in image.info
    with Image.open(out / "000.png") as image:
        assert image.height > image.width
    with Image.open(out / "001.png") as image:
        assert image.getextrema() == ((255, 255),) * 3


def test_a_picture_with_too_many_pixels(folders: tuple[Path, Path]) -> None:
    Image.new("L", (1100, 1000)).save(folders[0] / "0", "PNG")
    given = [Fetched(0, "0", folders[0] / "0")]
    (verdict,) = judge_photos(given, folders[1], LIMITS, PICTURES, nothing, ignore).verdicts
    (reason,) = verdict.reasons
    assert reason.message == (
        "The picture has 1100000 pixels, more than 1000000 pixels; scale it down."
    )


def test_large_photos_are_scaled_to_what_the_training_needs(folders: tuple[Path, Path]) -> None:
    fetched = files(folders[0], picture(0, (1200, 800)))
    (photo,) = judge_photos(fetched, folders[1], LIMITS, PICTURES, nothing, ignore).photos
    with Image.open(photo.path) as image:
        assert 256**2 <= image.width * image.height < 100_000
    assert (photo.width, photo.height) == (1200, 800)


def test_fewer_than_five_usable_photos_are_refused_with_all_verdicts(
    folders: tuple[Path, Path],
) -> None:
    fetched = files(folders[0], *(picture(n) for n in range(4)), picture(0))
    judged = judge_photos(fetched, folders[1], LIMITS, PICTURES, nothing, ignore)
    with pytest.raises(DatasetRejected, match="Only 4 of 5") as caught:
        require_enough(judged, "images")
    verdicts = [photo["verdict"] for photo in caught.value.details["photos"]]
    assert verdicts == ["kept"] * 4 + ["rejected"]


def test_the_users_captions_win(folders: tuple[Path, Path]) -> None:
    fetched = files(folders[0], picture(0), picture(1))
    given = [fetched[0], Fetched(1, "b", fetched[1].path, "smiling\non a beach")]
    judged = judge_photos(given, folders[1], LIMITS, PICTURES, nothing, ignore)
    dataset = write_captions(judged, given, TemplateCaptioner(*WORDS), WORDS, ignore)
    captions = [path.read_text() for path in sorted(folders[1].glob("*.txt"))]
    assert captions == ["mrzkqv person", "mrzkqv person, smiling on a beach"]
    assert [photo.caption for photo in dataset.photos] == captions
    shown = manifest(dataset, judged.verdicts, "template", [])
    assert [photo.caption for photo in shown.photos] == captions
    assert shown.digest == dataset.digest
    assert restored(shown, folders[1]) == dataset


def test_repeated_photos_lie_in_folders_as_trainers_want(folders: tuple[Path, Path]) -> None:
    fetched = files(folders[0], picture(0), picture(1))
    given = [fetched[0], replace(fetched[1], repeats=3)]
    judged = judge_photos(given, folders[1], LIMITS, PICTURES, nothing, ignore)
    dataset = write_captions(judged, given, TemplateCaptioner(*WORDS), WORDS, ignore)
    assert dataset.folder == folders[1]
    found = sorted(str(path.relative_to(folders[1])) for path in folders[1].rglob("*.*"))
    assert found == ["000.png", "000.txt", "3_photos/001.png", "3_photos/001.txt"]
    assert restored(manifest(dataset, judged.verdicts, "x", []), folders[1]) == dataset
    [once, thrice] = tomllib.loads(dataset_toml(small_spec(), dataset))["datasets"][0]["subsets"]
    assert (once["image_dir"], once["num_repeats"]) == (str(folders[1]), 1)
    assert (thrice["image_dir"], thrice["num_repeats"]) == (str(folders[1] / "3_photos"), 3)
    alike = [replace(photo, repeats=1) for photo in dataset.photos]
    assert digest_of(alike) != dataset.digest


def test_the_digest_names_photos_and_captions_whatever_their_order() -> None:
    def photo(sha256: str, caption: str) -> PreparedPhoto:
        return PreparedPhoto(Path("x"), caption, sha256, 1, 1)

    first = [photo("a", "x"), photo("b", "y")]
    assert digest_of(first) == digest_of(reversed(first))
    assert digest_of(first) != digest_of([photo("a", "y"), photo("b", "x")])
    assert digest_of(first) == hashlib.sha256(b"a x\nb y\n").hexdigest()


def test_progress_comes_to_its_end(folders: tuple[Path, Path]) -> None:
    shares: list[float] = []
    fetched = files(folders[0], *(picture(n) for n in range(3)))
    judge_photos(fetched, folders[1], LIMITS, PICTURES, nothing, shares.append)
    assert max(shares) == 1
    assert len(shares) == 3


def test_a_cancel_ends_the_preparation(folders: tuple[Path, Path]) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        judge_photos(
            files(folders[0], picture(0)), folders[1], LIMITS, PICTURES, token.check, ignore
        )
