"""Jobs that are wrong in every way that JSON allows: mutants of valid ones, and hostile values."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

Parent = dict[Any, Any] | list[Any]

_PHOTO: Final = {"url": "https://example.com/photo.png"}

VALID: Final[tuple[dict[str, Any], ...]] = (
    {"task": "health"},
    {"task": "image", "prompt": "a portrait of {trigger}", "character_id": "mira", "seed": 7},
    {
        "task": "image",
        "prompt": "two people",
        "characters": [
            {"character_id": "mira", "strength": 0.8},
            {"character_id": "tom", "version": "20260101T000000Z-a"},
        ],
        "width": 512,
        "height": 768,
        "steps": 2,
        "cfg": 6.5,
        "sampler": "euler",
        "scheduler": "normal",
        "count": 2,
        "format": "webp",
        "quality": 80,
        "params": {"clip_skip": 2},
        "timeout_s": 30,
    },
    {
        "task": "image",
        "prompt": "again",
        "negative_prompt": "blurry",
        "init_image": {"key": "inputs/start.png"},
        "denoise": 0.5,
    },
    {"task": "video", "image": _PHOTO, "frames": 14, "fps": 7.0, "motion": 127, "format": "webm"},
    {"task": "video", "prompt": "a walk", "character_id": "mira", "augmentation": 0.0},
    {
        "task": "train",
        "character_id": "mira",
        "images": [_PHOTO | {"caption": f"photo {number}"} for number in range(5)],
        "trigger": "ohwx mira",
        "steps": 100,
        "rank": 16,
        "alpha": 8.0,
        "learning_rate": 1e-4,
        "resolution": 512,
        "preview_prompts": ["portrait"],
    },
    {"task": "train", "character_id": "mira", "archive": {"base64": "UEsDBA=="}},
    {"task": "characters", "action": "list", "limit": 10, "order": "newest"},
    {"task": "characters", "action": "get", "character_id": "mira"},
    {"task": "characters", "action": "activate", "character_id": "mira", "version": "v1"},
    {
        "task": "characters",
        "action": "register",
        "character_id": "mira",
        "source": {"key": "inputs/lora.safetensors"},
        "trigger": "ohwx",
    },
)


def nested(depth: int) -> Any:
    """Lists in lists, `depth` of them."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


SCALARS: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**63,
    2**64,
    10**400,
    -(10**400),
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1b[31m\r\n\x7f",
    "\ud800",
    "\U0001f600" * 2000,
    "x" * 9000,
    "../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "{{}}",
    "{trigger}{0}{x.__class__}%s%n${HOME}",
    "<lora:../x:1>",
    "'; DROP TABLE characters; --",
    "CON",
    "\u202e\u2066mira",
    "MIRA",
    "mira/../tom",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "http://user:secret@example.com/",
    "http://169.254.169.254/latest/meta-data",
    "http://[::ffff:127.0.0.1]/",
    "http://2130706433/",
    "gopher://x",
    "https://",
)
CONTAINERS: Final[tuple[Any, ...]] = (
    [],
    {},
    [None],
    {"": ""},
    {"a": {"b": {"c": {}}}},
    {"\x00": 1, "__proto__": {}},
    nested(15),
    nested(17),
    nested(900),
    ["x"] * 2000,
    {str(number): number for number in range(2000)},
)


def mutants(count: int, *, seed: int = 1) -> Iterator[Any]:
    """`count` inputs, one to three changes away from a valid job; the same ones for a seed."""
    dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
    for _ in range(count):
        job: Any = copy.deepcopy(dice.choice(VALID))
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            job = _mutated(job, dice)
        yield job


def _mutated(job: Any, dice: random.Random) -> Any:
    places = list(_places(job))
    if not places or dice.random() < 0.02:
        return _hostile(dice)
    parent, key = dice.choice(places)
    dice.choice(_CHANGES)(parent, key, dice)
    return job


def _places(value: Any, depth: int = 8) -> Iterator[tuple[Parent, Any]]:
    if depth == 0:
        return
    if isinstance(value, dict):
        children: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value[:50]))
    else:
        return
    for key, child in children:
        yield value, key
        yield from _places(child, depth - 1)


def _hostile(dice: random.Random) -> Any:
    return copy.copy(dice.choice(SCALARS if dice.random() < 0.8 else CONTAINERS))


def _replace(parent: Parent, key: Any, dice: random.Random) -> None:
    parent[key] = _hostile(dice)


def _remove(parent: Parent, key: Any, _dice: random.Random) -> None:
    del parent[key]


def _add(parent: Parent, _key: Any, dice: random.Random) -> None:
    if isinstance(parent, dict):
        names = ("unknown", "task ", "Prompt", "\x00", "a.b", "x" * 5000, "path", "command")
        parent[dice.choice(names)] = _hostile(dice)
    else:
        parent.append(_hostile(dice))


def _wrap(parent: Parent, key: Any, _dice: random.Random) -> None:
    parent[key] = [parent[key]]


def _spell(parent: Parent, key: Any, _dice: random.Random) -> None:
    parent[key] = str(parent[key])


def _multiply(parent: Parent, key: Any, dice: random.Random) -> None:
    value = parent[key]
    if isinstance(value, (str, list)):
        parent[key] = value * dice.choice((0, 2, 50))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        parent[key] = value * dice.choice((-1, 1000, 10**30))


_CHANGES: Final[tuple[Callable[[Parent, Any, random.Random], None], ...]] = (
    _replace,
    _replace,
    _replace,
    _remove,
    _add,
    _wrap,
    _spell,
    _multiply,
)
