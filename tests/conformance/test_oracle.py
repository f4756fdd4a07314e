"""The start check against ComfyUI's own validation: what ComfyUI accepts is never refused.

Graphs of core nodes, changed at random, are sent to the real `/prompt` and to the check alike.
`ORACLE_GRAPHS` sets how many (200).
"""

import copy
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest
import requests

from tests.conformance.conversation import Graph
from tests.conformance.graphs import node, picture, picture_with_lora, two_colours
from tests.conformance.servers import Server
from workflows.checking import check_graph

_COUNT: Final = int(os.environ.get("ORACLE_GRAPHS", "200"))
_LITERALS: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 7.5, 64, 10**9, 2**64, True, "", "20", "x", "euler", None, {}),
    *([], [1], ["1", 0], ["3", 1], ["nobody", 0], ["1", 99], [1, 0], {"__value__": 5}),
)


def _dynamic(prefix: str) -> Graph:
    """Nodes whose inputs depend on what is linked or chosen: ComfyUI's newest kind."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=1),
        "2": node("EmptyImage", width=64, height=64, batch_size=1, color=2),
        "3": node("ComfySwitchNode", switch=True, on_false=["1", 0], on_true=["2", 0]),
        "4": node(
            "ResizeImageMaskNode",
            input=["3", 0],
            scale_method="area",
            **{"resize_type": "scale by multiplier", "resize_type.multiplier": 1.5},
        ),
        "5": node("BatchImagesNode", **{"images.image0": ["4", 0], "images.image1": ["1", 0]}),
        "6": node("SaveImage", images=["5", 0], filename_prefix=prefix),
    }


def _masks(prefix: str) -> Graph:
    """Pictures and masks, computed sizes, several outputs."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=1),
        "2": node("ImageToMask", image=["1", 0], channel="red"),
        "3": node("GrowMask", mask=["2", 0], expand=3, tapered_corners=True),
        "4": node("MaskToImage", mask=["3", 0]),
        "5": node("GetImageSize", image=["4", 0]),
        "6": node(
            "ImageScale",
            image=["1", 0],
            upscale_method="area",
            width=["5", 0],
            height=["5", 1],
            crop="disabled",
        ),
        "7": node("SaveImage", images=["6", 0], filename_prefix=prefix),
        "8": node("PreviewImage", images=["4", 0]),
    }


Change = Callable[[Graph, str, str, random.Random], None]


def _another_value(graph: Graph, name: str, key: str, chance: random.Random) -> None:
    graph[name]["inputs"][key] = copy.deepcopy(chance.choice(_LITERALS))


def _no_value(graph: Graph, name: str, key: str, _: random.Random) -> None:
    graph[name]["inputs"].pop(key, None)


def _another_link(graph: Graph, name: str, key: str, chance: random.Random) -> None:
    graph[name]["inputs"][key] = [chance.choice(list(graph)), chance.randrange(3)]


def _one_more(graph: Graph, name: str, key: str, chance: random.Random) -> None:
    graph[name]["inputs"][f"{key}.more"] = copy.deepcopy(chance.choice(_LITERALS))


def _another_class(graph: Graph, name: str, _: str, chance: random.Random) -> None:
    graph[name]["class_type"] = graph[chance.choice(list(graph))]["class_type"]


def _a_double(graph: Graph, name: str, _: str, __: random.Random) -> None:
    graph[f"{name}b"] = copy.deepcopy(graph[name])


def _as_text(graph: Graph, name: str, key: str, _: random.Random) -> None:
    if isinstance(graph[name]["inputs"].get(key), int | float):
        graph[name]["inputs"][key] = str(graph[name]["inputs"][key])


_CHANGES: Final[tuple[Change, ...]] = (
    *(_another_value, _no_value, _another_link, _one_more, _another_class, _a_double, _as_text),
)


def changed(graph: Graph, chance: random.Random) -> Graph:
    """A graph with one to three changes: what people and exports get wrong, and worse."""
    mutant = copy.deepcopy(graph)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(mutant))
        key = chance.choice([*mutant[name]["inputs"], "x"])
        chance.choice(_CHANGES)(mutant, name, key, chance)
    return mutant


def accepted(server: Server, graph: Graph) -> bool:
    """Whether ComfyUI queues all of a graph; what it queued is taken out again."""
    answer = server.post("/prompt", {"prompt": graph})
    server.post("/queue", {"clear": True})
    server.post("/interrupt", {})
    if answer.status_code >= requests.codes.server_error:
        return False
    body = answer.json()
    return not body.get("error") and not body.get("node_errors")


def test_what_comfyui_accepts_is_never_refused(server: Server) -> None:
    if not server.real:
        pytest.skip("the stand-in is no oracle")
    specs = server.get("/object_info").json()
    chance = random.Random(12)  # noqa: S311 - the same graphs on every run
    seeds = [two_colours("o"), picture("o", seed=1), _dynamic("o"), _masks("o")]
    seeds.append(picture_with_lora("o", "nobody.safetensors", seed=1))
    wrong, counts = [], Counter[tuple[bool, bool]]()
    graphs = [*seeds, *(changed(chance.choice(seeds), chance) for _ in range(_COUNT))]
    for graph in graphs:
        outputs = [
            name
            for name, each in graph.items()
            if specs.get(each["class_type"], {}).get("output_node")
        ]
        found = [each for each in check_graph(graph, specs, outputs) if each.kind != "unchecked"]
        taken = accepted(server, graph)
        counts[taken, not found] += 1
        if taken and found:
            wrong.append((graph, [each.text for each in found]))
    sys.stdout.write(
        f"oracle: {counts[True, True]} accepted by both, {counts[False, False]} refused by both, "
        f"{counts[False, True]} refused by ComfyUI alone, "
        f"{counts[True, False]} by the check alone\n"
    )
    assert counts[True, True] > 0
    for graph, texts in wrong:
        sys.stdout.write(f"{texts}\n  {graph}\n")
    assert wrong == []
