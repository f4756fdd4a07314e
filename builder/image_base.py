"""A Debian base without a registry, and what the machine's network asks of whoever uses it.

The Dockerfile knows nothing of this machine. Where certificates or a package index of its own are
needed to reach the network, the bootstrapped base has them, as a company's base image would.
"""

import os
import re
import shutil
import ssl
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from builder.image_shop import Shop

SUITE: Final = "bookworm"  # the Dockerfile's
NAME: Final = f"localhost/image-test-{SUITE}"
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)
_BUNDLE_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
_PIP_KEYS: Final = ("index-url", "extra-index-url", "trusted-host", "timeout", "proxy")
_CONTAINERFILE: Final = """FROM scratch
ADD base.tar /
COPY machine/ /
RUN update-ca-certificates
"""


def make_base(shop: Shop, suite: str = SUITE, packages: Sequence[str] = ()) -> str:
    """Bootstrap a Debian with those packages, once, and make it an image; returns its name."""
    kind = "-".join([suite, *packages])
    name = f"localhost/image-test-{kind}"
    folder = shop.home / kind
    folder.mkdir(exist_ok=True)
    tar = folder / "base.tar"
    if not tar.exists():
        fresh = tar.with_suffix(".new.tar")
        included = ",".join(["ca-certificates", *packages])
        slim = [f"--dpkgopt=path-exclude=/usr/share/{kind}/*" for kind in ("doc", "man", "locale")]
        slim.append("--dpkgopt=force-unsafe-io")  # it is thrown away if the machine goes down
        options = ["--variant=minbase", f"--include={included}", *slim, suite, str(fresh)]
        shop.run(["mmdebstrap", *options], log="mmdebstrap", timeout_s=300)
        fresh.replace(tar)
    machine = folder / "machine"
    shutil.rmtree(machine, ignore_errors=True)
    _write_certificates(machine / "usr/local/share/ca-certificates", tar)
    index = _pip_settings(shop)
    (machine / "etc" / "uv").mkdir(parents=True)
    (machine / "etc" / "pip.conf").write_text(_pip_conf(index))
    (machine / "etc" / "uv" / "uv.toml").write_text(_uv_toml(index))
    (folder / "Containerfile").write_text(_CONTAINERFILE)
    build = ["buildah", "build", "--isolation", "chroot", "--format", "docker", "--layers"]
    file = str(folder / "Containerfile")
    shop.run([*build, "-t", name, "-f", file, str(folder)], log=f"base-{kind}", timeout_s=300)
    return name


def _write_certificates(folder: Path, tar: Path) -> None:
    """One file for each certificate that this machine trusts and a plain Debian does not."""
    folder.mkdir(parents=True)
    with tarfile.open(tar) as archive:
        bundle = archive.extractfile("./etc/ssl/certs/ca-certificates.crt")
        known = _certificates(bundle.read().decode("ascii", "replace") if bundle else "")
    for number, certificate in enumerate(sorted(_certificates(_machine_bundle()) - known)):
        (folder / f"machine-{number}.crt").write_text(f"{certificate}\n")


def _machine_bundle() -> str:
    named = [os.environ.get(variable) for variable in _BUNDLE_VARIABLES]
    for path in [*named, ssl.get_default_verify_paths().cafile]:
        if path and Path(path).is_file():
            return Path(path).read_text("ascii", "replace")
    return ""


def _certificates(bundle: str) -> set[str]:
    return set(_CERTIFICATE.findall(bundle.replace("\r\n", "\n")))


def _pip_settings(shop: Shop) -> dict[str, str]:
    """The machine's package index as pip knows it; indexes in local folders are left out."""
    said = shop.run([sys.executable, "-m", "pip", "config", "list"], log="pip-config")
    settings = {}
    for line in said.splitlines():
        name, _, quoted = line.partition("=")
        key = name.rpartition(".")[2]
        words = [word for word in quoted.strip("'").split() if not word.startswith("file:")]
        if key in _PIP_KEYS and words:
            settings[key] = " ".join(words)
    return settings


def _pip_conf(settings: dict[str, str]) -> str:
    lines = ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in settings.items())]) + "\n"


def _uv_toml(settings: dict[str, str]) -> str:
    text = "system-certs = true\n"
    if index := settings.get("index-url"):
        text += f'[[index]]\nurl = "{index}"\ndefault = true\n'
    for extra in settings.get("extra-index-url", "").split():
        text += f'[[index]]\nurl = "{extra}"\n'
    return text
