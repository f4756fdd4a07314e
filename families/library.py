"""All families of a folder, by name. A new family is a new subfolder; nothing else changes."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from families.errors import FamilyInvalid, FamilyNotFound
from families.family import Family

FAMILY_FILE: Final = "family.toml"
MODULES_FILE: Final = "modules.json"


class Families(Mapping[str, Family]):
    """The families of a folder; an unknown name raises `FamilyNotFound`, not `KeyError`."""

    def __init__(self, families: Mapping[str, Family]) -> None:
        self._families = dict(families)

    def __getitem__(self, name: str) -> Family:
        try:
            return self._families[name]
        except KeyError:
            raise FamilyNotFound(name, self._families) from None

    def __contains__(self, name: object) -> bool:
        return name in self._families

    def __iter__(self) -> Iterator[str]:
        return iter(self._families)

    def __len__(self) -> int:
        return len(self._families)


def load_families(folder: Path) -> Families:
    """Read every subfolder that has a `family.toml`.

    Raises:
        FamilyInvalid: naming the folder and what is wrong; a worker that starts with half the
            families would take one's LoRAs for unknown.
    """
    found = sorted(path.parent for path in folder.glob(f"*/{FAMILY_FILE}"))
    return Families({path.name: load(path) for path in found})


def load(folder: Path) -> Family:
    """Read one family folder. Raises `FamilyInvalid`."""
    name = folder.name
    try:
        declared = tomllib.loads((folder / FAMILY_FILE).read_bytes().decode())
        modules = json.loads((folder / MODULES_FILE).read_bytes())
        return Family.model_validate({**declared, "name": name, "modules": modules})
    except OSError as error:
        raise FamilyInvalid(name, f"{error.strerror}: {Path(error.filename).name}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or FAMILY_FILE
        raise FamilyInvalid(name, f"{where}: {fault['msg']}") from error
    except ValueError as error:  # JSON, TOML and UTF-8 errors are all ValueErrors
        raise FamilyInvalid(name, str(error)) from error
