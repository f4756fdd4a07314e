import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import families.errors
import lora_registry.errors
import lora_registry.store
import worker.errors
import workflows.errors
from errors import RETRYABLE, CodedError, ErrorCode

README = Path(__file__).resolve().parents[2] / "README.md"


def documented() -> Iterator[tuple[str, str]]:
    """Every code of README's table with what its last column says."""
    table = README.read_text().split("| code | meaning | again? |\n|---|---|---|\n")[1]
    for line in table.split("\n\n")[0].splitlines():
        codes, *_, again = line.strip("|").split("|")
        for code in re.findall(r"`(\w+)`", codes):
            yield code, again.strip()


PACKAGES = (
    *(worker.errors, workflows.errors, families.errors),
    *(lora_registry.errors, lora_registry.store),
)


def leaves(kind: type[CodedError]) -> Iterator[type[CodedError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from leaves(below)


def test_every_package_shares_the_one_base() -> None:
    for module in PACKAGES:
        raised = [kind for kind in vars(module).values() if isinstance(kind, type)]
        raised = [kind for kind in raised if issubclass(kind, BaseException)]
        assert raised
        assert all(issubclass(kind, CodedError) for kind in raised), module.__name__


def test_every_code_says_whether_to_try_again() -> None:
    assert set(RETRYABLE) == set(ErrorCode)


def test_readme_has_every_code_once_and_says_the_same() -> None:
    rows = list(documented())
    assert sorted(code for code, _ in rows) == sorted(ErrorCode)
    assert {code: {"yes": True, "no": False}[again] for code, again in rows} == RETRYABLE


@pytest.mark.parametrize("kind", list(leaves(CodedError)))
def test_retryable_is_a_function_of_the_code(kind: type[CodedError]) -> None:
    assert isinstance(kind.code, ErrorCode)
    assert "retryable" not in vars(kind) or kind is CodedError
