"""The figures for a person: Markdown tables, and what a picture and a character cost; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from worker.training.defaults import default_steps

_GB: Final = 1e9
_MIB: Final = 1024 * 1024
_PHOTOS: Final = 20  # of the character whose price is told
_ROOM: Final = (
    0.92  # of a card's memory is for the trainer; the driver and ComfyUI's context hold on
)


def prices(figures: Mapping[str, Any], per_second: float | None) -> dict[str, float]:
    """Seconds, and dollars where a second has a price, of a picture and of a character."""
    seconds: dict[str, float] = {}
    pictures = figures.get("pictures", {})
    if "ours" in pictures:
        seconds["picture"] = pictures["ours"]["of_1"]["job_s"]
        seconds["picture_of_four"] = round(pictures["ours"]["of_4"]["job_s"] / 4, 3)
    trainings = figures.get("training", {})
    character = character_s(trainings) if "whole_job" in trainings else None
    if character is not None:
        seconds["character"] = character
    priced = {f"{name}_s": value for name, value in seconds.items()}
    if per_second is not None:
        priced |= {f"{name}_usd": round(value * per_second, 5) for name, value in seconds.items()}
    return priced


def character_s(trainings: Mapping[str, Any]) -> float | None:
    """Seconds of a character from 20 photos with the fastest setting that fits this card."""
    besides = trainings["whole_job"]["besides_training_s"]
    whole = [
        run["start_s"] + run["s_per_step"] * default_steps(_PHOTOS, run["batch_size"])
        for run in trainings["kohya"]
        if run.get("fits") and run.get("s_per_step")
    ]
    return round(besides + min(whole), 1) if whole else None


def fits(run: Mapping[str, Any]) -> str:
    """Whether a setting fits the cards that get it by default."""
    gb, peak = run["tier_gb"], run.get("peak_vram_mib")
    if not gb or not peak:
        return "-"
    return "yes" if peak * _MIB <= _ROOM * gb * _GB else "NO"


def markdown(document: Mapping[str, Any]) -> str:
    """Everything that was measured, ready to be pasted."""
    figures = document["figures"]
    parts = [_headline(document)]
    if rows := [*_speed(figures), *_price_rows(document.get("prices", {}))]:
        parts.append(_table(("what", "figure"), rows))
    trainings = figures.get("training", {})
    if "kohya" in trainings:
        heads = ("resolution", "batch", "checkpointing", "s/step", "steps/s", "start s", "peak GB")
        settings = [_training_row(run) for run in trainings["kohya"]]
        parts.append(_table((*heads, "default from GB", "fits there"), settings))
    if failed := {name: each["failed"] for name, each in figures.items() if "failed" in each}:
        parts.append(_table(("not measured", "why"), list(failed.items())))
    return "\n\n".join(parts) + "\n"


def _headline(document: Mapping[str, Any]) -> str:
    found = document["card"]
    name = f"{found['name']}, {found['memory_mib'] / 1024:.0f} GiB" if found else "no card: a CPU"
    weights = "real" if document["real_weights"] else "random"
    lines = [f"**{name}**; {document['comfyui']}; {weights} weights; {document['date']}"]
    if document["pretends"]:
        names = " and ".join(document["pretends"])
        lines.append(f"**{names} are stand-ins: these figures say nothing of a GPU.**")
    return "\n\n".join(lines)


def _speed(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    pictures, queue = figures.get("pictures", {}), figures.get("queue", {})
    if "ours" in pictures:
        yield "worker ready", f"{pictures['worker_ready_s']:.1f} s"
        for kind, words in (("ours", "our options"), ("comfyui_defaults", "ComfyUI's defaults")):
            seen = pictures[kind]
            yield f"first picture, {words}", f"{seen['first_picture_s']:.2f} s"
            for count in (1, 4):
                each = seen[f"of_{count}"]
                yield (
                    f"a picture of {count}, {words}",
                    f"{each['gpu_s_per_picture']:.3f} s on the card, peak {_gb(each)}",
                )
        clip = pictures["clip"]
        yield f"clip of {clip['frames']} frames", f"{clip['gpu_s']:.2f} s, peak {_gb(clip)}"
    if "loras" in figures.get("characters", {}):
        yield from _switching(figures["characters"])
    if "gap_ms" in queue:
        yield "container to ready", f"{queue['container_to_ready_s']:.1f} s"
        yield (
            f"gap between {queue['jobs']} queued jobs",
            f"p50 {queue['gap_ms']['p50']} ms; the card in use {queue['gpu_utilisation']:.1%}",
        )
    yield from _training_lines(figures.get("training", {}))


def _switching(seen: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "a picture without a character", f"{seen['without_gpu_s']:.3f} s on the card"
    for kind, words in (("from_the_bucket", "from the bucket"), ("from_the_disk", "from the disk")):
        each = seen[kind]
        yield (
            f"a picture, {seen['loras']} characters in rotation, {words}",
            f"{each['gpu_s']:.3f} s on the card, {each['fetch_ms']:.0f} ms to fetch",
        )
    for name, each in seen["loaders"].items():
        without, step = each["first_step_without_one_ms"], each["step_ms"]
        figure = f"{each['first_step_after_a_switch_ms']:.0f} ms"
        yield (
            f"first step after a switch, {name}",
            f"{figure} (without: {without:.0f} ms; later steps {step:.0f} ms)",
        )


def _training_lines(trainings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    given = [run for run in trainings.get("kohya", []) if "handover_s" in run]
    back = [run["picture_after_it_s"] for run in given if "picture_after_it_s" in run]
    if back:
        yield "hand-over of the card to a training", f"{max(r['handover_s'] for r in given):.2f} s"
        yield "first picture after a training", f"{max(back):.2f} s"
    comfyui = trainings.get("comfyui", {})
    if comfyui.get("s_per_step"):
        yield "ComfyUI's trainer, batch 1", f"{comfyui['s_per_step']:.3f} s a step"
    memory = trainings.get("out_of_memory", {})
    if "outcome" in memory:
        note = " (pretended)" if memory["pretended"] else ""
        yield "out of memory", f"{memory['outcome']}{note}, {memory['whole_s']:.1f} s"


def _price_rows(priced: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for name, words in (
        ("picture", "a picture"),
        ("picture_of_four", "a picture of four at once"),
        ("character", f"a character from {_PHOTOS} photos"),
    ):
        if f"{name}_s" in priced:
            dollars = f", ${priced[f'{name}_usd']:.5f}" if f"{name}_usd" in priced else ""
            yield f"{words}, whole", f"{priced[f'{name}_s']:.2f} s{dollars}"


def _training_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    yes = "yes" if run["gradient_checkpointing"] else "no"
    settings = (str(run["resolution"]), str(run["batch_size"]), yes)
    tier = f"{run['tier_gb']:.0f}" if run["tier_gb"] is not None else "-"
    if "failed" in run:
        return (*settings, run["failed"], "-", "-", "-", tier, "-")
    pace = run["s_per_step"]
    return (
        *settings,
        f"{pace:.3f}" if pace else "-",
        f"{1 / pace:.2f}" if pace else "-",
        f"{run['start_s']:.1f}",
        _gb(run) if run["fits"] else f"{_gb(run)} at half the batch",
        tier,
        fits(run),
    )


def _gb(figures: Mapping[str, Any]) -> str:
    peak = figures.get("peak_vram_mib")
    return f"{peak * _MIB / _GB:.1f} GB" if peak else "-"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
