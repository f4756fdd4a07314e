import contextlib
import io
import json
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.cancel import CancelToken
from worker.errors import Cancelled, DatasetRejected
from worker.training.archive import PhotoSet, Unpacked, unpack
from worker.training.containers import ArchiveLimits


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
        return list(self.photo_set(**limits).photos)

    def photo_set(self, **limits: float) -> PhotoSet:
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


def test_zip64_is_read(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        with opened.open("a.png", "w", force_zip64=True) as file:
            file.write(b"x" * 100)

    archive.write(fill)
    raw = archive.path.read_bytes()
    end = raw.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", raw, end + 10)
    record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<IIQI", 0x07064B50, 0, end, 1)
    last = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, *(0xFFFF,) * 2, *(0xFFFFFFFF,) * 2, 0)
    archive.path.write_bytes(raw[:end] + record + locator + last)
    assert [photo.name for photo in archive.unpack()] == ["a.png"]
    with pytest.raises(DatasetRejected, match="too many entries"):
        archive.unpack(directory_bytes=10)


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
    with pytest.raises(DatasetRejected, match=r"not a zip|damaged"):
        archive.unpack()


@pytest.mark.parametrize(
    ("body", "nature"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "a login page"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(200), "a 7z archive"),
        (b"Rar!\x1a\x07\x01\0" + bytes(200), "a RAR archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a git-lfs pointer"),
        (b"\xff\xd8\xff" + bytes(200), "a JPEG picture"),
    ],
)
def test_what_came_in_an_archives_place_is_named(archive: Zip, body: bytes, nature: str) -> None:
    archive.path.write_bytes(body)
    with pytest.raises(DatasetRejected, match=nature):
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
    assert {each.name for each in found.unused} == {"set/c.npz", "set/IMG_1.AAE"}
    assert {photo.name: photo.caption for photo in found.photos} == {
        "set/images/A.JPG": "in a sibling folder",
        "set/b.jpg": "käse \u2013 dash",
        "set/c.jpg": "whole name",
        "shot 12:00:00.jpg": None,
    }


def a_tar(mode: str, *members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as opened:  # type: ignore[call-overload]  # the mode is a parameter
        for info, body in members:
            info.size = len(body)
            opened.addfile(info, io.BytesIO(body))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_read_however_it_is_packed(archive: Zip, mode: str) -> None:
    photos = (member("./set/a.jpg"), b"first"), (member("./set/b.jpg"), b"second" * 100_000)
    words = (member("./set/a.txt"), "käse".encode()), (member("./.DS_Store"), b"clutter")
    archive.path.write_bytes(a_tar(mode, *photos, *words))
    found = archive.photo_set()
    assert [(photo.name, photo.caption) for photo in found.photos] == [
        ("set/a.jpg", "käse"),
        ("set/b.jpg", None),
    ]
    assert [photo.path.read_bytes()[:6] for photo in found.photos if photo.path] == [
        b"first",
        b"second",
    ]
    assert not found.unused
    assert sorted(path.name for path in archive.path.parent.iterdir()) == ["out", "photos.zip"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_packed_tar_that_grows_beyond_the_bounds(archive: Zip, mode: str) -> None:
    archive.path.write_bytes(a_tar(mode, (member("a.png"), bytes(5_000_000))))
    with pytest.raises(DatasetRejected, match="unpacks to more"):
        archive.unpack(total_bytes=1_000_000)
    assert [path.name for path in archive.path.parent.iterdir() if path.is_file()] == ["photos.zip"]


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        (member("../evil.png"), "points outside"),
        (member("/etc/evil.png"), "points outside"),
        (member("a.png", tarfile.SYMTYPE), "symbolic link"),
        (member("a.png", tarfile.LNKTYPE), "symbolic link"),
        (member("a.png", tarfile.FIFOTYPE), "no plain file"),
        (member("a.png", tarfile.CHRTYPE), "no plain file"),
    ],
)
def test_unsafe_entries_of_a_tar(archive: Zip, info: tarfile.TarInfo, sentence: str) -> None:
    archive.path.write_bytes(a_tar("w:", (info, b"")))
    with pytest.raises(DatasetRejected, match=sentence):
        archive.unpack()


def test_a_name_of_gigabytes_in_a_tar_is_not_read(archive: Zip) -> None:
    """A header says that a long name of 3 GB follows; the file is sparse, so it is there."""
    info = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 3_000_000_000
    with archive.path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(3_000_001_024)
    with pytest.raises(DatasetRejected, match="too many entries"):
        archive.unpack()


@given(at=st.integers(0, 1600), byte=st.integers(0, 255))
def test_any_damage_of_a_tar_is_a_rejection_or_photos(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    raw = bytearray(a_tar("w:", (member("a.png"), b"abc" * 50), (member("b.txt"), b"words")))
    raw[at] = byte
    folder = tmp_path_factory.mktemp("tar")
    (folder / "t").write_bytes(bytes(raw))
    with contextlib.suppress(DatasetRejected):
        unpack(folder / "t", folder, ArchiveLimits(), nothing)


def test_pictures_are_counted_not_files(archive: Zip) -> None:
    """And a picture is known by what it is where its name does not say."""

    def fill(opened: zipfile.ZipFile) -> None:
        for number in range(3):
            opened.writestr(f"{number}.jpg", b"x")
            opened.writestr(f"{number}.caption", f"words {number}")
            opened.writestr(f"{number}.npz", b"latents")
            opened.writestr(f"{number}.MOV", b"\0\0\0\x14ftypqt  ")
        opened.writestr("IMG_0004", b"\xff\xd8\xff\xe0 a picture")
        opened.writestr("notes.pdf", b"%PDF-1.7")

    found = archive.write(fill).photo_set(photos=4)
    assert [photo.name for photo in found.photos] == ["0.jpg", "1.jpg", "2.jpg", "IMG_0004"]
    assert [photo.caption for photo in found.photos] == ["words 0", "words 1", "words 2", None]
    reasons = {each.name: each.reason for each in found.unused}
    assert reasons["notes.pdf"] == "it is a PDF"
    assert reasons["0.MOV"] == "it is a video"
    assert len(reasons) == 7


def test_every_text_is_used_or_named(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr("a.jpg", b"x")
        opened.writestr("a.txt", "first")
        opened.writestr("a.caption", "second")
        opened.writestr("b.txt", "no photo")
        opened.writestr("README.md", "about")
        opened.writestr("c.jpg", b"x")
        opened.writestr("c.txt", "long " * 1000)
        opened.writestr("d.jpg", b"x")
        opened.writestr("d.txt", b"caf\xc3\xa9 \xff")

    found = archive.write(fill).photo_set()
    assert {each.name for each in found.unused} == {
        "a.caption",
        "b.txt",
        "README.md",
        "c.txt",
        "d.txt",
    }
    captions = [photo.caption for photo in found.photos]
    assert captions[0] == "first"
    assert len(captions[1] or "") == 2000
    assert captions[2] == "café \ufffd"


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        (
            "metadata.jsonl",
            b"""{"file_name": "A.jpg", "text": "one"}

{"file_name": "gone.jpg", "text": "x"}
{"file_name": "sub/b.jpg", "caption": "two"}""",
        ),
        (
            "metadata.csv",
            "file_name,text\r\na.jpg,one\r\n./sub/b.jpg,two\r\ngone,x".encode("utf-16"),
        ),
    ],
)
def test_the_hubs_datasets(archive: Zip, name: str, metadata: bytes) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr("train/a.jpg", b"x")
        opened.writestr("train/sub/b.jpg", b"x")
        opened.writestr(f"train/{name}", metadata)

    found = archive.write(fill).photo_set()
    assert [photo.caption for photo in found.photos] == ["one", "two"]
    [unused] = found.unused
    assert "1 of its captions" in unused.reason


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"{not json", b"file_name\n1", b'{"a": 1}', b"\xff"]
)
@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata_that_gives_nothing_is_named(archive: Zip, name: str, body: bytes) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr("a.jpg", b"x")
        opened.writestr(name, body)

    found = archive.write(fill).photo_set()
    assert {each.name for each in found.unused} == {name}


def test_kohyas_folders_give_repeats_and_words(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr("img/10_ohwx woman/a.jpg", b"x")
        opened.writestr("img/10_ohwx woman/deep/b.jpg", b"x")

    found = archive.write(fill).photo_set()
    assert [photo.repeats for photo in found.photos] == [1, 1]
    assert found.words == "ohwx woman"


def test_different_repeats_keep_their_ratio(archive: Zip) -> None:
    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr("15_ohwx woman/a.jpg", b"x")
        opened.writestr("5_ohwx woman/b.jpg", b"x")
        opened.writestr("2024_beach/c.jpg", b"x")

    found = archive.write(fill).photo_set()
    assert {photo.name[-5]: photo.repeats for photo in found.photos} == {"a": 15, "b": 5, "c": 1}
    assert found.words is None


def test_names_in_utf8_that_do_not_say_so(archive: Zip) -> None:
    """macOS takes accents apart and sets no flag; the hub's file has them whole."""
    name = unicodedata.normalize("NFD", "é.jpg")

    def fill(opened: zipfile.ZipFile) -> None:
        opened.writestr(name, b"x")
        opened.writestr("metadata.jsonl", json.dumps({"file_name": "é.jpg", "text": "words"}))

    archive.write(fill)
    raw = bytearray(archive.path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.index(signature)
        raw[at + flags + 1] &= ~0x08
    archive.path.write_bytes(bytes(raw))
    [photo] = archive.unpack()
    assert (photo.name, photo.caption) == ("é.jpg", "words")
