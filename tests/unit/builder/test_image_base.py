import io
import tarfile
from pathlib import Path

import pytest

from builder import image_base
from builder.image_shop import CheckFailed, Shop

PLAIN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
OWN = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----"


@pytest.fixture
def base_tar(tmp_path: Path) -> Path:
    path = tmp_path / "base.tar"
    body = f"{PLAIN}\n".encode()
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("./etc/ssl/certs/ca-certificates.crt")
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))
    return path


def certificates(folder: Path) -> list[str]:
    return [path.read_text().strip() for path in sorted(folder.iterdir())]


def test_only_certificates_of_the_machine_go_into_the_base(
    tmp_path: Path, base_tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# a bundle\n{PLAIN}\n{OWN}\r\n".replace("\n", "\r\n"))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    image_base._write_certificates(tmp_path / "own", base_tar)
    assert certificates(tmp_path / "own") == [OWN]


def test_machine_with_nothing_of_its_own_adds_nothing(
    tmp_path: Path, base_tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(PLAIN)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    image_base._write_certificates(tmp_path / "own", base_tar)
    assert certificates(tmp_path / "own") == []


def test_indexes_in_local_folders_stay_behind(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "file:///opt/wheels https://more.example/simple",
        "PIP_FIND_LINKS": "/opt/wheels",
    }
    assert image_base._pip_settings(Shop(tmp_path, tmp_path, environment)) == {
        "index-url": "https://index.example/simple",
        "extra-index-url": "https://more.example/simple",
    }


def test_package_index_goes_to_pip_and_uv() -> None:
    settings = {"index-url": "https://index.example/simple", "timeout": "60"}
    assert "index-url = https://index.example/simple\n" in image_base._pip_conf(settings)
    assert 'url = "https://index.example/simple"\ndefault = true' in image_base._uv_toml(settings)
    assert "[[index]]" not in image_base._uv_toml({})


def test_failed_command_says_its_last_words(tmp_path: Path) -> None:
    shop = Shop(tmp_path, tmp_path, {"PATH": "/usr/bin:/bin"})
    with pytest.raises(CheckFailed, match=r"(?s)sh ended with 3 .*the reason"):
        shop.run(["sh", "-c", "echo the reason; exit 3"], log="try")
    assert (tmp_path / "logs" / "try.log").read_text() == "the reason\n"


def test_hanging_command_is_ended(tmp_path: Path) -> None:
    shop = Shop(tmp_path, tmp_path, {"PATH": "/usr/bin:/bin"})
    with pytest.raises(CheckFailed, match=r"longer than 0\.2 s"):
        shop.run(["sleep", "60"], log="sleep", timeout_s=0.2)
