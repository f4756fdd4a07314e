"""Where the gateway is and which key to use: from the environment, read once."""

import os
from dataclasses import dataclass
from typing import Final, Self

DEFAULT_URL: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """`CHARACTERS_URL` and `CHARACTERS_API_KEY`."""

    url: str
    api_key: str | None

    @classmethod
    def from_environment(cls) -> Self:
        """Read the two."""
        url = os.environ.get("CHARACTERS_URL") or DEFAULT_URL
        return cls(url, os.environ.get("CHARACTERS_API_KEY") or None)
