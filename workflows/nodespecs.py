"""What a node of the running ComfyUI takes: its entry of `/object_info`, read as ComfyUI reads it.

A node spec is `{"input": {"required": {name: [type, options]}, "optional": …}, "output": [types],
"output_node": bool, "python_module": …}`; a combo's type is the list of its choices, or `"COMBO"`
with `options["options"]`. The rules are those of ComfyUI 0.33.0 (`comfy_execution/validation.py`,
`comfy_api/latest/_io.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NodeSpec = Mapping[str, Any]
NodeSpecs = Mapping[str, NodeSpec]

_AUTOGROW: Final = "COMFY_AUTOGROW_V3"
_DYNAMIC_COMBO: Final = "COMFY_DYNAMICCOMBO_V3"
_MATCH: Final = "COMFY_MATCHTYPE_V3"
_ANY: Final = "*"
_DYNAMIC: Final = ("COMFY_", "_V3")  # how ComfyUI names types whose inputs depend on values


@dataclass(frozen=True, slots=True)
class Declared:
    """One input that a node takes, given the values it has.

    Attributes:
        type: its name, or the list of choices of an old-style combo.
        options: the rest of its declaration.
        understood: whether these rules know what ComfyUI makes of it.
    """

    type: Any
    options: Mapping[str, Any]
    required: bool
    understood: bool = True

    @property
    def choices(self) -> Sequence[Any] | None:
        """The choices of a combo; None for anything else."""
        if isinstance(self.type, list):
            return self.type
        choices = self.options.get("options") if self.type == "COMBO" else None
        return choices if isinstance(choices, list) else None

    @property
    def upload(self) -> str | None:
        """What kind of file of the input folder it names (image, video, audio, file), if any."""
        kinds = ("image", "video", "audio", "file")
        return next((kind for kind in kinds if self.options.get(f"{kind}_upload")), None)


def is_core(spec: NodeSpec) -> bool:
    """Whether a node is ComfyUI's own, so that its rules are known to be those read here."""
    module = str(spec.get("python_module", "nodes"))
    return module == "nodes" or module.startswith("comfy_extras.")


def declared(spec: NodeSpec, given: Mapping[str, Any]) -> dict[str, Declared]:
    """The inputs that a node with these values takes, dynamic ones spelt out.

    Args:
        spec: the node's entry of `/object_info`.
        given: the node's inputs in the graph.
    """
    return dict(_inputs(spec.get("input", {}), given, ""))


def _inputs(
    sections: Mapping[str, Any], given: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Declared]]:
    for section in ("required", "optional"):
        for name, entry in (sections.get(section) or {}).items():
            kind, options = entry[0], entry[1] if len(entry) > 1 else {}
            full = f"{prefix}{name}"
            plain = Declared(kind, options or {}, required=section == "required")
            if kind == _AUTOGROW:
                yield from _grown(plain, given, full)
            elif kind == _DYNAMIC_COMBO:
                yield from _chosen(plain, given, full)
            elif isinstance(kind, str) and _is_unknown(kind):
                yield full, Declared(kind, {}, required=False, understood=False)
            else:
                yield full, plain


def _is_unknown(kind: str) -> bool:
    begin, end = _DYNAMIC
    return kind.startswith(begin) and kind.endswith(end) and kind != _MATCH


def _grown(
    plain: Declared, given: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Declared]]:
    """`images` that grows is `images.image0`, `images.image1`, …; the first `min` are required."""
    template = plain.options.get("template", {})
    sections = {name: entries for name, entries in template.get("input", {}).items() if entries}
    names = template.get("names")
    if names is None and "prefix" in template:
        names = [f"{template['prefix']}{number}" for number in range(template.get("max", 0))]
    if not sections or names is None:
        yield prefix, Declared(_AUTOGROW, {}, required=False, understood=False)
        return
    section, entries = next(iter(sections.items()))
    kind, *rest = next(iter(entries.values()))
    least = template.get("min", 0) if section == "required" else 0
    for number, name in enumerate(names):
        full = f"{prefix}.{name}"
        if number < least or full in given:
            yield full, Declared(kind, rest[0] if rest else {}, required=number < least)


def _chosen(
    plain: Declared, given: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Declared]]:
    """A choice that brings inputs of its own, below its name; ComfyUI does not miss it."""
    for option in plain.options.get("options", ()):
        if option.get("key") == given.get(prefix):
            yield from _inputs(option.get("inputs", {}), given, f"{prefix}.")
            yield prefix, Declared(plain.type, {}, required=plain.required)


def fits(received: Any, wanted: Any) -> bool:
    """Whether an output of one type may be linked to an input of another, as ComfyUI decides."""
    if received == wanted or _ANY in (received, wanted) or _MATCH in (received, wanted):
        return True
    if isinstance(received, list) and wanted == "COMBO":
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    gives = {kind.strip() for kind in received.split(",")}
    takes = {kind.strip() for kind in wanted.split(",")}
    return _ANY in gives | takes or bool(gives & takes)
