import pytest

from workflows.formats import written_formats
from workflows.template import Workflow


@pytest.mark.parametrize(
    ("node", "inputs", "expected"),
    [
        ("SaveVideo", {"format": "auto"}, ("mp4",)),
        ("SaveVideo", {"format": "webm"}, ("webm",)),
        ("SaveWEBM", {}, ("webm",)),
        ("SaveAnimatedWEBP", {}, ("webp",)),
        ("VHS_VideoCombine", {"format": "video/h264-mp4"}, ("mp4",)),
        ("VHS_VideoCombine", {"format": "image/gif"}, ("gif",)),
        ("SomebodysSave", {"format": "mp4"}, ()),
    ],
)
def test_what_a_node_will_write(
    node: str, inputs: dict[str, str], expected: tuple[str, ...]
) -> None:
    workflow = Workflow.model_validate(
        {
            "name": "a",
            "digest": "",
            "title": "A",
            "kind": "video",
            "graph": {"1": {"class_type": node, "inputs": inputs}},
            "outputs": [{"node": "1"}],
        }
    )
    assert written_formats(workflow) == expected
