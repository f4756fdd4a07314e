"""The start of a ComfyUI follows the options that it has, not a version's number."""

from pathlib import Path

import pytest

from worker.comfyui.options import start_arguments

DATABASE = ("--database-url", "sqlite:///:memory:")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--disable-api-nodes", "--database-url"], ("--disable-api-nodes", *DATABASE)),
        (
            ["--offline", "--disable-api-nodes", "--disable-assets", "--database-url"],
            ("--offline", "--disable-assets", *DATABASE),
        ),
        (["--something-new"], ()),
    ],
)
def test_only_what_it_knows_is_given(
    tmp_path: Path, options: list[str], expected: tuple[str, ...]
) -> None:
    file = tmp_path / "comfy" / "cli_args.py"
    file.parent.mkdir()
    file.write_text("".join(f'parser.add_argument("{option}", type=str)\n' for option in options))
    assert start_arguments(tmp_path) == expected


def test_without_a_list_those_of_the_pinned_version(tmp_path: Path) -> None:
    assert start_arguments(tmp_path) == ("--disable-api-nodes", *DATABASE)
