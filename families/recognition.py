"""Which family a LoRA file belongs to, from the names and shapes in its header. It never guesses.

Every module of the file is looked up by its exact name in every family's table, and its shape held
against the model's. A family is taken only when it explains the file better than every other does;
what metadata or a person say may choose among equals, and never overrules the shapes.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from families.adapters import Adapter, Shape, adapter_of, split_key
from families.errors import LoraRejected
from families.family import Family, Layout, forms, literal_patterns
from families.library import Families

_STATING: Final = ("ss_base_model_version", "modelspec.architecture", "ss_base_model")
_SHOWN: Final = 3
_DIGITS: Final = str.maketrans("0123456789", "##########")


@dataclass(frozen=True, slots=True)
class LoraFacts:
    """What the header tells.

    Attributes:
        format: the key layout: kohya, comfyui, diffusers, lycoris, …
        rank: the rank that most modules have.
        alpha: the alpha that the metadata states; None where it states none.
        base_model: the family.
        modules: how many modules of the base model it changes.
        ignored: modules of none of the family's tables, which ComfyUI would not load.
        size: of the file, in bytes.
        text_encoder: whether it changes a text encoder too.
        metadata: the file's own, as text.
    """

    format: str
    rank: int
    alpha: float | None
    base_model: str
    modules: int
    ignored: int
    size: int
    text_encoder: bool
    metadata: Mapping[str, str]


@dataclass(slots=True)
class _Match:
    """How far one family explains a file: names of modules, by what becomes of them."""

    loaded: dict[str, Layout] = field(default_factory=dict)
    blocked: dict[str, Layout] = field(default_factory=dict)
    misfits: dict[str, Shape] = field(default_factory=dict)

    @property
    def known(self) -> int:
        return len(self.loaded) + len(self.blocked.keys() - self.loaded.keys())

    def misfitting(self) -> set[str]:
        return self.misfits.keys() - self.loaded.keys() - self.blocked.keys()


@dataclass(frozen=True)
class _Named:
    """One pattern of one layout of one family."""

    family: str
    layout: Layout
    pattern: str
    shape: Shape

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(_spelled(self.layout, name) for name in literal_patterns(self.pattern))

    def fits(self, outputs: int | None, inputs: int | None) -> bool:
        wide = 1
        for side in self.shape[1:]:
            wide *= side
        return (outputs is None or outputs == self.shape[0]) and (
            inputs is None or len(self.shape) == 1 or inputs == wide
        )


class Recogniser:
    """Every family's names, indexed by their form (digits left out); built on first use."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def facts(
        self,
        shapes: Mapping[str, Shape],
        metadata: Mapping[str, str],
        *,
        size: int,
        base_model: str | None = None,
    ) -> LoraFacts:
        """Say what a LoRA file is.

        Args:
            shapes: tensor name -> shape, as in the file's header.
            metadata: the header's own.
            size: of the file, in bytes.
            base_model: the family that a person says it is; chooses among equals only.

        Raises:
            FamilyNotFound: there is no such family.
            LoraRejected: no LoRA, of no known family, of several alike, of another than stated, or
                in a layout that ComfyUI loads as nothing.
            LoraDamaged: parts of a module are missing or do not fit each other.
        """
        if base_model is not None:
            self._families[base_model]
        adapters = _adapters(shapes)
        matches = self._matches(adapters)
        family = self._chosen(adapters, matches, metadata, base_model)
        match = matches[family.name]
        _check_loads(family, match, adapters)
        layouts = Counter(layout.name for layout in match.loaded.values())
        ranks = Counter(adapters[name].rank for name in match.loaded)
        rank = ranks.most_common(1)[0][0]
        if not rank:
            raise LoraRejected("The LoRA's rank is 0 in its shapes; export it again.")
        return LoraFacts(
            format=layouts.most_common(1)[0][0],
            rank=rank,
            alpha=_number(metadata.get("ss_network_alpha")),
            base_model=family.name,
            modules=len(match.loaded),
            ignored=len(adapters) - len(match.loaded),
            size=size,
            text_encoder=any(layout.text_encoder for layout in match.loaded.values()),
            metadata=metadata,
        )

    @cached_property
    def _index(self) -> Mapping[str, tuple[_Named, ...]]:
        index: defaultdict[str, list[_Named]] = defaultdict(list)
        for family in self._families.values():
            for layout in family.lora.layouts:
                for table in layout.names:
                    for pattern, shape in family.modules[table].items():
                        named = _Named(family.name, layout, pattern, shape)
                        for form in {_form(_spelled(layout, name)) for name in forms(pattern)}:
                            index[form].append(named)
        return {form: tuple(named) for form, named in index.items()}

    def _matches(self, adapters: Mapping[str, Adapter]) -> dict[str, _Match]:
        groups: defaultdict[tuple[str, int | None, int | None], list[str]] = defaultdict(list)
        for name, adapter in adapters.items():
            groups[_form(name), adapter.outputs, adapter.inputs].append(name)
        matches: defaultdict[str, _Match] = defaultdict(_Match)
        for (form, outputs, inputs), names in groups.items():
            for named in self._index.get(form, ()):
                found = named.names.intersection(names)
                match = matches[named.family]
                if not named.fits(outputs, inputs):
                    match.misfits.update(dict.fromkeys(found, named.shape))
                elif named.layout.remedy is None:
                    match.loaded.update(dict.fromkeys(found, named.layout))
                else:
                    match.blocked.update(dict.fromkeys(found, named.layout))
        return {name: match for name, match in matches.items() if match.known}

    def _chosen(
        self,
        adapters: Mapping[str, Adapter],
        matches: Mapping[str, _Match],
        metadata: Mapping[str, str],
        base_model: str | None,
    ) -> Family:
        fitting = {name: match.known for name, match in matches.items() if not match.misfitting()}
        most = max(fitting.values(), default=0)
        best = {name for name, known in fitting.items() if known == most}
        if not best or _foreign(self._families, best, matches, adapters):
            raise _unknown(adapters, matches, self._families)
        if base_model is not None and base_model not in best:
            raise LoraRejected(
                f"base_model says {base_model}, but the file's shapes are those of "
                f"{_either(best)}; leave base_model out or register the right file.",
                details={"base_model": base_model, "recognised": sorted(best)},
            )
        stated = _stated(self._families, metadata)
        if stated and not stated & best:
            raise LoraRejected(
                f"The file's metadata says {_either(stated)}, but its shapes are those of "
                f"{_either(best)}; export it again from its trainer.",
                details={"stated": sorted(stated), "recognised": sorted(best)},
            )
        best = {base_model} if base_model is not None else stated & best or best
        if len(best) > 1:
            raise LoraRejected(
                f"The LoRA fits {_either(best)} alike and does not say which; name one in "
                "base_model.",
                details={"recognised": sorted(best)},
            )
        return self._families[best.pop()]


def _adapters(shapes: Mapping[str, Shape]) -> dict[str, Adapter]:
    if not shapes:
        raise LoraRejected("The LoRA file is empty: it has no tensors; train or export it again.")
    modules: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        found = split_key(key)
        if found is not None:
            modules.setdefault(found[0], {})[found[1]] = shape
    adapters: dict[str, Adapter] = {}
    for name, parts in modules.items():
        # An alpha alone changes nothing, and a file may have thousands of them.
        alone = len(parts) == 1 and "alpha" in parts
        adapter = None if alone else adapter_of(name, parts)
        if adapter is not None:
            adapters[name] = adapter
    if not adapters:
        raise LoraRejected("The file has no LoRA modules; register a LoRA, not a checkpoint.")
    return adapters


def _foreign(
    families: Families,
    best: Collection[str],
    matches: Mapping[str, _Match],
    adapters: Mapping[str, Adapter],
) -> bool:
    """Whether modules of the model itself are left that no best family has: then it is another."""
    for name in best:
        match = matches[name]
        unknown = adapters.keys() - match.loaded.keys() - match.blocked.keys()
        prefixes = tuple(
            layout.prefix
            for layout in families[name].lora.layouts
            if layout.prefix and not layout.text_encoder
        )
        if len(unknown) < match.known and not any(each.startswith(prefixes) for each in unknown):
            return False
    return True


def _check_loads(family: Family, match: _Match, adapters: Mapping[str, Adapter]) -> None:
    """Refuse what ComfyUI would load as nothing, or in part."""
    blocked = match.blocked.keys() - match.loaded.keys()
    if blocked:
        layout = match.blocked[min(blocked)]
        part = f"{len(match.loaded)} of {len(adapters)} modules" if match.loaded else "nothing"
        raise LoraRejected(
            f"The file is in the {layout.name} layout for {family.title}, of which ComfyUI loads "
            f"{part}; {layout.remedy}.",
            details={"layout": layout.name, "base_model": family.name},
        )


def _unknown(
    adapters: Mapping[str, Adapter], matches: Mapping[str, _Match], families: Families
) -> LoraRejected:
    closest = max(matches, key=lambda name: matches[name].known, default=None)
    shown = ", ".join(repr(name[:100]) for name in sorted(adapters)[:_SHOWN])
    if closest is None:
        return LoraRejected(
            f"The LoRA is of no base model that this worker knows (its modules: {shown}); register "
            f"one of: {', '.join(sorted(families))}.",
            details={"modules": len(adapters)},
        )
    match = matches[closest]
    return LoraRejected(
        f"The LoRA is of no base model that this worker knows: nearest is {closest}, which has "
        f"{match.known} of its {len(adapters)} modules and another shape for "
        f"{len(match.misfitting())}.",
        details={"nearest": closest, "known": match.known, "modules": len(adapters)},
    )


def _stated(families: Families, metadata: Mapping[str, str]) -> set[str]:
    """The families that the metadata can mean; empty where it says nothing that is known."""
    for key in _STATING:
        stated = metadata.get(key, "").lower()
        found = {
            name for name, family in families.items() if stated and family.calls_itself(stated)
        }
        if found:
            return found
    return set()


def _spelled(layout: Layout, name: str) -> str:
    return layout.prefix + (name.replace(".", "_") if layout.underscores else name)


def _form(name: str) -> str:
    return name.translate(_DIGITS)


def _either(names: Collection[str]) -> str:
    return " or ".join(sorted(names))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
