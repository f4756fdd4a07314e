"""A first `workflow.toml` for a graph, found by reading the graph. Pure.

It knows ComfyUI's habits (what inputs are called, how conditioning is linked), not node classes; so
it also finds its way in nodes of others. What it cannot be sure of it says.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from workflows.graph import Graph, Slot, Socket, link_of, links, needed

_TEXTS: Final = ("text", "prompt", "text_g", "text_l", "clip_l", "t5xxl", "string", "value")
_CONDITIONING: Final = ("positive", "negative")
# Inputs that pass conditioning on; from a sampler or a guider up to the prompt.
_PASSED_ON: Final = ("conditioning", "conditioning_1", "conditioning_to", "guider", "cond1")
_SEEDS: Final = ("seed", "noise_seed")
_PLAIN_ROLES: Final = {
    "steps": ("steps",),
    "cfg": ("cfg",),
    "sampler": ("sampler_name",),
    "scheduler": ("scheduler",),
    "width": ("width",),
    "height": ("height",),
    "frames": ("video_frames", "length", "num_frames"),
    "fps": ("fps", "frame_rate"),
}
_SIZED_BY: Final = ("batch_size", "length", "video_frames", "num_frames")
_FILES: Final = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"),
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a"),
    "video": (".mp4", ".webm", ".mov", ".mkv", ".avi"),
}
_MODELS: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".gguf", ".sft", ".onnx", ".bin")
_SAVED: Final = (("audio", "audio"), ("video", "video"), ("webm", "video"), ("animated", "video"))
_SAVES: Final = ("filename_prefix",)
_FAMILIES: Final = (
    ("flux", "flux"),
    ("wan", "wan"),
    ("svd", "svd"),
    ("qwen", "qwen"),
    ("xl", "sdxl"),
)


@dataclass(slots=True)
class Draft:
    """What was found, and what whoever reads it should look at.

    Attributes:
        inputs: name -> (slot, kind).
        outputs: (node, kind).
        chains: (model socket, clip socket).
    """

    kind: str = "image"
    base_model: str = ""
    models: tuple[str, ...] = ()
    roles: dict[str, list[Slot]] = field(default_factory=dict)
    inputs: dict[str, tuple[Slot, str]] = field(default_factory=dict)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    chains: list[tuple[Socket, Socket | None]] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def draft(graph: Graph) -> Draft:
    """Read a graph and say what a job could set in it."""
    found = Draft()
    _outputs(graph, found)
    reached = needed(graph, [node for node, _ in found.outputs])
    alive = {node: graph[node] for node in graph if node in reached}
    left = [node for node in graph if node not in reached]
    if left:
        found.unsure.append(f"nodes that lead to no output are left out: {', '.join(left)}")
    _prompts(alive, found)
    _numbers(alive, found)
    _seeds(alive, found)
    _files(alive, found)
    _chains(alive, found)
    _models(alive, found)
    return found


def _outputs(graph: Graph, found: Draft) -> None:
    for node, spec in graph.items():
        name = spec["class_type"].lower()
        if any(key in spec["inputs"] for key in _SAVES):
            kind = next((kind for word, kind in _SAVED if word in name), "")
            found.outputs.append((node, kind or ("image" if "image" in name else "file")))
        elif name == "previewimage":
            found.unsure.append(f"node {node} only previews; a SaveImage there would deliver it")
    kinds = {kind for _, kind in found.outputs}
    found.kind = next((kind for kind in ("video", "image", "audio") if kind in kinds), "file")
    if not found.outputs:
        found.unsure.append("no node saves a file (filename_prefix); add a SaveImage")


def _prompts(graph: Graph, found: Draft) -> None:
    """From everything that takes positive or negative conditioning, up to the texts."""
    texts: dict[str, list[Slot]] = {"positive": [], "negative": []}
    for spec in graph.values():
        for side in _CONDITIONING:
            link = link_of(spec["inputs"].get(side))
            if link:
                texts[side] += _text_above(graph, link, side)
        both = any(side in spec["inputs"] for side in _CONDITIONING)
        for name in _PASSED_ON:
            link = link_of(spec["inputs"].get(name))
            if link and not both:
                texts["positive"] += _text_above(graph, link, "positive")
    negative = list(dict.fromkeys(texts["negative"]))
    positive = [slot for slot in dict.fromkeys(texts["positive"]) if slot not in negative]
    if not positive and not negative:
        positive = [slot for node in graph if (slot := _text_of(graph, node))]
        if positive:
            found.unsure.append("the prompt was guessed: no conditioning leads to it")
    _take(found, "prompt", positive, "several texts lead to positive conditioning")
    _take(found, "negative_prompt", negative, "several texts lead to negative conditioning")


def _take(found: Draft, role: str, slots: Sequence[Slot], why: str) -> None:
    if not slots:
        return
    found.roles[role] = [slots[0]]
    if len(slots) > 1:
        others = ", ".join(str(slot) for slot in slots[1:])
        found.unsure.append(f"{role} = {slots[0]}: {why}; others: {others}")


def _text_above(graph: Graph, link: Socket, side: str) -> list[Slot]:
    """The texts that feed a link, the nearest first."""
    seen: set[str] = set()
    waiting, found = [link.node], []
    while waiting:
        node = waiting.pop(0)
        if node in seen or node not in graph:
            continue
        seen.add(node)
        slot = _text_of(graph, node)
        if slot:
            found.append(slot)
            continue
        ahead = links(graph[node]["inputs"])
        wanted = (side, *_PASSED_ON) if side in ahead else (*_PASSED_ON, "conditioning_2", *_TEXTS)
        waiting += [ahead[name].node for name in wanted if name in ahead]
    return found


def _text_of(graph: Graph, node: str) -> Slot | None:
    """The text that a node holds, or that a plain text node beside it holds."""
    inputs = graph[node]["inputs"]
    for name in _TEXTS:
        if isinstance(inputs.get(name), str):
            return Slot(node, name)
    return None


def _numbers(graph: Graph, found: Draft) -> None:
    for role, names in _PLAIN_ROLES.items():
        slots = [
            Slot(node, name)
            for node, spec in graph.items()
            for name in names
            if _is_plain(spec["inputs"].get(name)) and _belongs(role, spec)
        ]
        if role in {"fps", "steps"} and len({_value(graph, slot) for slot in slots}) == 1:
            found.roles[role] = slots  # the same number in several places is one number
        elif role == "frames" and found.kind != "video":
            continue
        else:
            _take(found, role, slots, "several nodes have it")
    if found.kind == "image":
        latents = (Slot(node, "batch_size") for node, spec in graph.items() if _is_latent(spec))
        sized = [slot for slot in latents if _is_plain(_value(graph, slot))]
        _take(found, "count", sized, "several latents have a batch_size")


def _belongs(role: str, spec: Mapping[str, Any]) -> bool:
    """Width and height count where a latent or a clip is begun, not where a picture is cut."""
    return role not in {"width", "height"} or any(name in spec["inputs"] for name in _SIZED_BY)


def _is_latent(spec: Mapping[str, Any]) -> bool:
    return "width" in spec["inputs"] and "batch_size" in spec["inputs"]


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _value(graph: Graph, slot: Slot) -> Any:
    return graph[slot.node]["inputs"].get(slot.input)


def _seeds(graph: Graph, found: Draft) -> None:
    slots = [
        Slot(node, name)
        for node, spec in graph.items()
        for name in _SEEDS
        if isinstance(spec["inputs"].get(name), int)
    ]
    if slots:
        found.roles["seed"] = slots
    if len(slots) > 1:
        found.unsure.append(f"seed goes into all of {', '.join(map(str, slots))}")


def _files(graph: Graph, found: Draft) -> None:
    for node, spec in graph.items():
        for name, value in spec["inputs"].items():
            kind = _kind_of(value) if "load" in spec["class_type"].lower() else None
            if kind:
                masks = kind == "image" and _only_masks(graph, node, spec["class_type"])
                found.inputs[_free_name(found, kind, masks)] = (
                    Slot(node, name),
                    "mask" if masks else kind,
                )
    if "init_image" in found.inputs:
        denoise = [
            Slot(node, "denoise")
            for node, spec in graph.items()
            if isinstance(spec["inputs"].get("denoise"), int | float)
        ]
        _take(found, "denoise", denoise, "several nodes have it")


def _kind_of(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    suffix = PurePosixPath(value).suffix.lower()
    return next((kind for kind, suffixes in _FILES.items() if suffix in suffixes), None)


def _only_masks(graph: Graph, node: str, class_type: str) -> bool:
    used = {
        link.output
        for spec in graph.values()
        for link in links(spec["inputs"]).values()
        if link.node == node
    }
    return "mask" in class_type.lower() or used == {1}


def _free_name(found: Draft, kind: str, masks: bool) -> str:  # noqa: FBT001 - private, one meaning
    first = "image" if found.kind == "video" else "init_image"
    wanted = "mask" if masks else first if kind == "image" else kind
    name, number = wanted, 2
    while name in found.inputs:
        name, number = f"{'image' if wanted == 'init_image' else wanted}_{number}", number + 1
    return name


def _chains(graph: Graph, found: Draft) -> None:
    """Where models and text encoders come from: the node that takes none itself."""
    models, clips = _roots(graph, "model"), _roots(graph, "clip")
    for model in models:
        own = [clip for clip in clips if clip.node == model.node]
        shared = clips[:1] if len(models) == 1 else []
        found.chains.append((model, next(iter(own or shared), None)))
    if len(models) > 1:
        found.unsure.append(
            f"characters go into every model: {', '.join(map(str, models))}; take out those that "
            "are of another family"
        )


def _roots(graph: Graph, name: str) -> list[Socket]:
    roots: dict[Socket, None] = {}
    for spec in graph.values():
        link = link_of(spec["inputs"].get(name))
        while link and link.node in graph:
            above = link_of(graph[link.node]["inputs"].get(name))
            if above is None:
                roots[link] = None
            link = above
    return list(roots)


def _models(graph: Graph, found: Draft) -> None:
    named = (
        value
        for spec in graph.values()
        for value in spec["inputs"].values()
        if isinstance(value, str) and value.lower().endswith(_MODELS)
    )
    found.models = tuple(dict.fromkeys(named))
    text = " ".join(found.models).lower()
    found.base_model = next((family for word, family in _FAMILIES if word in text), "")
    if found.chains and not found.base_model:
        found.unsure.append("base_model: the family of the LoRAs that fit is not known")
        found.base_model = "unknown"


def to_toml(found: Draft, title: str) -> str:
    """The draft as a commented `workflow.toml`."""
    return "\n".join(_lines(found, title)) + "\n"


def _lines(found: Draft, title: str) -> Iterator[str]:
    yield "# Drafted from graph.json; docs/workflows.md explains every key."
    yield from (f"# UNSURE: {line}" for line in found.unsure)
    yield f"title = {_quoted(title)}"
    yield f"kind = {_quoted(found.kind)}"
    if found.base_model:
        yield f"base_model = {_quoted(found.base_model)} # family of the LoRAs that fit"
    if found.models:
        yield f"models = [{', '.join(map(_quoted, found.models))}]"
    if "prompt" in found.roles:
        yield 'required = ["prompt"] # what every job must give'
    yield ""
    yield "[roles] # field of a job = node.input"
    yield from (f"{role} = {_list(slots)}" for role, slots in found.roles.items())
    for name, (slot, kind) in found.inputs.items():
        yield ""
        yield f"[inputs.{name}]"
        yield f"bind = {_quoted(str(slot))}"
        yield f"kind = {_quoted(kind)}"
    for model, clip in found.chains:
        yield ""
        yield "[[loras]] # where characters are chained in"
        yield f"model = {_quoted(str(model))}"
        if clip:
            yield f"clip = {_quoted(str(clip))}"
    for node, kind in found.outputs:
        yield ""
        yield "[[outputs]]"
        yield f"node = {_quoted(node)}"
        yield f"kind = {_quoted(kind)}"


def _list(slots: Iterable[Slot]) -> str:
    named = [_quoted(str(slot)) for slot in slots]
    return named[0] if len(named) == 1 else f"[{', '.join(named)}]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
