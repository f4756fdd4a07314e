"""Everything that runs inside the container."""

from typing import Final

__version__: Final = "0.1.0"
