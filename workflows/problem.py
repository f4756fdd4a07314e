"""What a check of a workflow finds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding; `subject` is the missing node class or file, else the node."""

    kind: Literal["node_missing", "model_missing", "mismatch", "unchecked"]
    subject: str
    text: str
