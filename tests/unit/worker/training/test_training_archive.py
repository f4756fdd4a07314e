import contextlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.cancel import CancelToken
from worker.errors import Cancelled, DatasetRejected
from worker.training.archive import ArchiveLimits, Unpacked, caption_text, unpack


def nothing() -> None:
    """No cancel."""


class Zip:
    """Builds a zip in the test's folder and unpacks it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "photos.zip"
        self.out = folder / "out"
        self.out.mkdir()

    def write(self, fill: Callable[[zipfile.ZipFile], None]) -> "Zip":
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_DEFLATED) as opened:
            fill(opened)
        return self

    def unpack(self, **limits: float) -> list[Unpacked]:
        return unpack(self.path, self.out, ArchiveLimits(**limits), nothing)  # type: ignore[arg-type]  # ints are floats


@pytest.fixture
def archive(tmp_path: Path) -> Zip:
    return Zip(tmp_path)


def test_photos_of_any_depth_with_their_captions(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr("set/deep/b.JPG", b"second")
        opened.writestr("set/deep/b.txt", "\ufeffon a  beach\r\nat dusk\x00".encode())
        opened.writestr("a.png", b"first")
        opened.writestr("set/a.txt", b"not beside a photo")
        opened.writestr("__MACOSX/set/deep/._b.JPG", b"clutter")
        opened.writestr(".DS_Store", b"clutter")
        opened.writestr("Thumbs.db", b"clutter")
        opened.mkdir("empty")

    photos = archive.write(fill).unpack()
    assert [photo.name for photo in photos] == ["a.png", "set/deep/b.JPG"]
    assert [photo.caption for photo in photos] == [None, "on a beach at dusk"]
    assert [photo.path.read_bytes() for photo in photos if photo.path] == [b"first", b"second"]
    assert all(photo.path and photo.path.parent == archive.out for photo in photos)


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_names_that_point_outside(archive: Zip, name: str) -> None:
    with pytest.raises(DatasetRejected, match="points outside"):
        archive.write(lambda opened: opened.writestr(name, b"x")).unpack()
    assert not list(archive.out.iterdir())


def test_symbolic_links(archive: Zip) -> None:
    info = zipfile.ZipInfo("link.png")
    info.external_attr = 0o120777 << 16
    with pytest.raises(DatasetRejected, match="symbolic link"):
        archive.write(lambda opened: opened.writestr(info, "/etc/passwd")).unpack()


def test_a_bomb_by_ratio(archive: Zip) -> None:
    with pytest.raises(DatasetRejected, match="unpacks to more"):
        archive.write(lambda opened: opened.writestr("a.png", bytes(5_000_000))).unpack()


def test_a_bomb_by_total(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        for number in range(5):
            opened.writestr(f"{number}.png", bytes(500_000))

    with pytest.raises(DatasetRejected, match="more than 1,000,000 bytes"):
        archive.write(fill).unpack(total_bytes=1_000_000)


def test_sizes_that_lie_are_not_believed(archive: Zip) -> None:
    """Both headers say ten bytes; what comes out is cut there and fails the checksum."""
    archive.write(lambda opened: opened.writestr("a.png", b"y" * 400_000))
    raw = archive.path.read_bytes().replace(struct.pack("<I", 400_000), struct.pack("<I", 10))
    archive.path.write_bytes(raw)
    with pytest.raises(DatasetRejected, match="damaged"):
        archive.unpack(total_bytes=1000)


def test_a_photo_too_large_is_left_out(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr("a.png", b"x" * 2000)
        opened.writestr("b.png", b"x" * 10)

    photos = archive.write(fill).unpack(photo_bytes=1000)
    assert [photo.path is None for photo in photos] == [True, False]


def test_too_many_photos(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        for number in range(4):
            opened.writestr(f"{number}.png", b"x")

    with pytest.raises(DatasetRejected, match="4 photos; at most 3"):
        archive.write(fill).unpack(photos=3)
    with pytest.raises(DatasetRejected, match="4 entries; at most 2"):
        archive.unpack(entries=2)


def test_a_table_too_large_to_read(archive: Zip) -> None:
    archive.write(lambda opened: opened.writestr("a.png", b"x"))
    with pytest.raises(DatasetRejected, match="too many entries"):
        archive.unpack(directory_bytes=10)


def test_zip64_is_refused(archive: Zip) -> None:
    archive.write(lambda opened: opened.writestr("a.png", b"x"))
    raw = archive.path.read_bytes()
    end = raw.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes(16)
    archive.path.write_bytes(raw[:end] + locator + raw[end:])
    with pytest.raises(DatasetRejected, match="zip64"):
        archive.unpack()


def test_encrypted_archives(archive: Zip) -> None:
    archive.write(lambda opened: opened.writestr("a.png", b"x"))
    raw = bytearray(archive.path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.path.write_bytes(bytes(raw))
    with pytest.raises(DatasetRejected, match="encrypted"):
        archive.unpack()


@pytest.mark.parametrize("body", [b"", b"PK", b"not a zip at all" * 100, b"PK\x05\x06" + bytes(9)])
def test_what_is_no_zip(archive: Zip, body: bytes) -> None:
    archive.path.write_bytes(body)
    with pytest.raises(DatasetRejected, match="not a zip"):
        archive.unpack()


@given(at=st.integers(0, 400), byte=st.integers(0, 255))
@example(at=184, byte=0)  # a name that begins with NUL
@example(at=97, byte=12)  # says bzip2 and is none
@example(at=148, byte=12)
def test_any_damage_is_a_rejection_or_photos(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.png", b"abc" * 50)
        opened.writestr("b/c.txt", b"words")
    raw = bytearray(made.getvalue())
    raw[at % len(raw)] = byte
    folder = tmp_path_factory.mktemp("zip")
    (folder / "z").write_bytes(bytes(raw))
    with contextlib.suppress(DatasetRejected):
        unpack(folder / "z", folder, ArchiveLimits(), nothing)


def test_a_cancel_ends_the_unpacking(archive: Zip) -> None:
    archive.write(lambda opened: opened.writestr("a.png", b"x" * 1000))
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        unpack(archive.path, archive.out, ArchiveLimits(), token.check)


def test_captions_are_one_line_and_bounded() -> None:
    assert caption_text(b"a\tb\r\n\r\nc\x1b[0m") == "a b c [0m"
    assert len(caption_text(b"x" * 9000)) == 2000
    assert caption_text(b"caf\xc3\xa9 \xff") == "café \ufffd"


def test_captions_are_found_and_read_as_the_trainers_do(tmp_path: Path) -> None:
    given = {
        "set/images/A.JPG": b"a",
        "set/captions/a.txt": "in a sibling folder".encode("utf-16"),
        "set/b.jpg": b"b",
        "set/b.caption": b"k\xe4se \x96 dash",
        "set/c.jpg": b"c",
        "set/c.jpg.txt": b"\xef\xbb\xbfwhole name",
        "set/c.npz": b"latents",
        "set/IMG_1.AAE": b"edits",
        "set/.ipynb_checkpoints/b-checkpoint.jpg": b"copy",
        "@eaDir/b.jpg": b"thumbnail",
        "shot 12:00:00.jpg": b"d",
        ".": b"",
    }
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, body in given.items():
            opened.writestr(name, body)
    folder = tmp_path / "out"
    folder.mkdir()
    found = unpack(archive, folder, ArchiveLimits(photos=4), lambda: None)
    assert {photo.name: photo.caption for photo in found} == {
        "set/images/A.JPG": "in a sibling folder",
        "set/b.jpg": "käse \u2013 dash",
        "set/c.jpg": "whole name",
        "shot 12:00:00.jpg": None,
    }
