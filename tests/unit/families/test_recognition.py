"""Recognition: every layout of every family, every kind of adapter, and what must be refused."""

import time
from collections.abc import Mapping

import pytest

from errors import ErrorCode
from families.errors import FamilyNotFound, LoraDamaged, LoraRejected
from families.family import Family, Layout, literal_patterns
from families.recognition import LoraFacts
from tests.loras import FAMILIES, RECOGNISER

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
ATTN = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"  # SDXL's, 640 from 2048
LOHA: Shapes = {"hada_w2_a": (640, 4), "hada_w2_b": (4, 2048)}
GLORA: Shapes = {
    "a1.weight": (4, 2048),
    "a2.weight": (2048, 4),
    "b1.weight": (4, 2048),
    "b2.weight": (640, 4),
}
LAYOUTS = [(family, layout) for family in FAMILIES.values() for layout in family.lora.layouts]
# Models whose modules have the same names and shapes, so that a file alone cannot tell them apart.
TWINS = [
    {"flux1", "chroma"},
    {"sd3_medium", "sd35_medium"},
    {"anima", "cosmos_predict2_2b"},
    {"ltxv_13b", "ltx2"},
    {"sd15", "sd2", "sdxl", "sd3_medium", "sd35_medium", "sd35_large", "flux1", "sdxl_refiner"},
]


def facts(
    shapes: Mapping[str, Shape],
    metadata: Mapping[str, str] | None = None,
    base_model: str | None = None,
) -> LoraFacts:
    return RECOGNISER.facts(shapes, metadata or {}, size=1, base_model=base_model)


def refusal(shapes: Shapes, base_model: str | None = None) -> LoraRejected | None:
    try:
        facts(shapes, base_model=base_model)
    except LoraRejected as refused:
        return refused
    return None


def pair(name: str, shape: Shape, rank: int = 4) -> Shapes:
    kernel = (1,) * (len(shape) - 2)
    return {
        f"{name}.lora_down.weight": (rank, *shape[1:]),
        f"{name}.lora_up.weight": (shape[0], rank, *kernel),
        f"{name}.alpha": (),
    }


def written(modules: Mapping[str, Mapping[str, Shape]], layout: Layout) -> Shapes:
    """A LoRA of every matrix that a layout names."""
    shapes: Shapes = {}
    for table in layout.names:
        for pattern, shape in modules[table].items():
            for name in literal_patterns(pattern) if len(shape) > 1 else ():
                spelled = name.replace(".", "_") if layout.underscores else name
                shapes |= pair(layout.prefix + spelled, shape)
    return shapes


def named(family: Family, layout: Layout) -> str:
    return f"{family.name}-{layout.prefix or 'bare'}-{layout.names[0]}"


@pytest.mark.parametrize(
    ("family", "layout"), LAYOUTS, ids=[named(family, layout) for family, layout in LAYOUTS]
)
def test_a_file_of_a_family_is_never_taken_for_anothers(family: Family, layout: Layout) -> None:
    shapes = written(family.modules, layout)
    problem = refusal(shapes)
    if problem is not None and "recognised" in problem.details:  # twins: a person must say which
        recognised = set(problem.details["recognised"])
        assert family.name in recognised
        assert any(recognised <= twins for twins in TWINS)
        problem = refusal(shapes, family.name)
    if layout.remedy is not None:
        assert problem is not None
        assert "which ComfyUI loads" in str(problem)
        assert problem.details["base_model"] == family.name
        return
    assert problem is None
    found = facts(shapes, base_model=family.name)
    assert (found.base_model, found.rank, found.ignored) == (family.name, 4, 0)
    assert found.modules == len(shapes) // 3


@pytest.mark.parametrize(
    ("stated", "family"),
    [
        ("sdxl_base_v1-0", "sdxl"),
        ("stable-diffusion-xl-v1-base/lora", "sdxl"),
        ("sdxl_1.0", "sdxl"),
        ("sd_v1", "sd15"),
        ("stable-diffusion-v2-768-v/lora", "sd2"),
        ("flux1", "flux1"),
        ("Flux.1-dev/lora", "flux1"),
        ("zimage", "z_image"),
        ("z-image/lora", "z_image"),
        ("qwen-image/lora", "qwen_image"),
        ("flux2_klein_4b", "flux2_klein_4b"),
        ("flux2_klein_9b", "flux2_klein_9b"),
        ("wan2.2-ti2v-5b", "wan22_5b"),
        ("wan22_14b", "wan_14b"),
        ("wan2.1-t2v-1.3b", "wan_1_3b"),
        ("hunyuan-video/lora", "hunyuan_video"),
        ("anima", "anima"),
        ("chroma", "chroma"),
        ("ltx2", "ltx2"),
    ],
)
def test_what_trainers_write_into_metadata_means_the_family(stated: str, family: str) -> None:
    native = FAMILIES[family].lora.layouts[0]
    shapes = written(FAMILIES[family].modules, native)
    assert facts(shapes, {"ss_base_model_version": stated}).base_model == family


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_A.weight": (4, 2048), "lora_B.weight": (640, 4)},
        {"lora_A.default.weight": (4, 2048), "lora_B.default.weight": (640, 4)},
        {"lora.down.weight": (4, 2048), "lora.up.weight": (640, 4)},
        {"lora_linear_layer.down.weight": (4, 2048), "lora_linear_layer.up.weight": (640, 4)},
        {"lora_A": (4, 2048), "lora_B": (640, 4)},
        {"lora_down.weight": (4, 2048), "lora_up.weight": (640, 4), "dora_scale": (640, 1)},
        {
            "hada_w1_a": (640, 4),
            "hada_w1_b": (4, 2048),
            "hada_w2_a": (640, 4),
            "hada_w2_b": (4, 2048),
        },
        {"lokr_w1": (16, 16), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 128)},
        GLORA,
    ],
    ids=["peft", "default", "diffusers", "transformers", "mochi", "dora", "loha", "lokr", "glora"],
)
def test_every_kind_of_low_rank_adapter_is_read(parts: Shapes) -> None:
    found = facts({f"{ATTN}.{part}": shape for part, shape in parts.items()})
    assert (found.base_model, found.rank, found.modules) == ("sdxl", 4, 1)


@pytest.mark.parametrize(
    "parts",
    [
        {"lokr_w1": (16, 16), "lokr_w2": (40, 128)},
        {"diff": (640, 2048)},
        {"oft_blocks": (10, 64, 64)},
    ],
    ids=["lokr with full factors", "diff", "oft"],
)
def test_full_adapters_are_read_too(parts: Shapes) -> None:
    shapes = {f"{ATTN}.{part}": shape for part, shape in parts.items()}
    found = facts(shapes, {"ss_base_model_version": "sdxl_base_v1-0"})
    assert found.base_model == "sdxl"
    assert found.rank >= 1


def test_shapes_that_contradict_the_metadata_are_refused_with_both_named() -> None:
    with pytest.raises(LoraRejected, match=r"says flux1.*shapes are those of sdxl") as error:
        facts(pair(ATTN, (640, 2048)), {"ss_base_model_version": "flux1"})
    assert error.value.details == {"stated": ["flux1"], "recognised": ["sdxl"]}


def test_shapes_that_contradict_what_is_said_are_refused_with_both_named() -> None:
    with pytest.raises(LoraRejected, match=r"base_model says flux1.*shapes are those of sdxl"):
        facts(pair(ATTN, (640, 2048)), base_model="flux1")
    with pytest.raises(FamilyNotFound, match="no family 'sdxxl'"):
        facts(pair(ATTN, (640, 2048)), base_model="sdxxl")


def test_right_names_with_another_width_are_no_familys() -> None:
    with pytest.raises(LoraRejected, match="no base model that this worker knows"):
        facts(pair("diffusion_model.layers.0.attention.qkv", (9999, 3333)))


def test_a_model_with_more_blocks_is_another_model() -> None:
    shapes: Shapes = {}
    for block in range(31):  # Z-Image has 30
        shapes |= pair(f"diffusion_model.layers.{block}.attention.qkv", (11520, 3840))
    with pytest.raises(LoraRejected, match="nearest is z_image, which has 30 of its 31 modules"):
        facts(shapes)


def test_a_text_encoder_that_comfyui_does_not_know_is_counted_not_refused() -> None:
    shapes = pair(ATTN, (640, 2048)) | pair(ATTN.replace("to_k", "to_v"), (640, 2048))
    found = facts(shapes | pair("lora_te3_encoder_block_0", (64, 64)))
    assert (found.modules, found.ignored) == (2, 1)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "is empty"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (2, 2)}, "register a LoRA, not a"),
        ({f"{ATTN}.alpha": ()}, "no LoRA modules"),
        ({"anything": (3,)}, "no LoRA modules"),
        (pair("unheard_of.block", (4, 4)), r"no base model .*'unheard_of\.block'"),
        (pair(ATTN, (640, 2048), rank=0), "rank is 0"),
    ],
)
def test_what_is_no_lora_is_refused(shapes: Shapes, message: str) -> None:
    with pytest.raises(LoraRejected, match=message) as caught:
        facts(shapes)
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_down.weight": (4, 2048), "lora_up.weight": (640, 5)},
        {"lora_down.weight": (4, 2048)},
        {"lora_up.weight": (640,), "lora_down.weight": ()},
        {"hada_w1_a": (640, 4)},
        {"lokr_w1_a": (640, 4)},
        {"a1.weight": ()},
    ],
)
def test_parts_that_are_missing_or_do_not_fit_are_damage(parts: Shapes) -> None:
    with pytest.raises(LoraDamaged):
        facts({f"{ATTN}.{part}": shape for part, shape in parts.items()})


def test_ten_thousand_keys_take_no_time_to_speak_of() -> None:
    shapes = written(FAMILIES["ltx2"].modules, FAMILIES["ltx2"].lora.layouts[1])
    shapes |= {f"lora_te3_{number}.alpha": () for number in range(10_000 - len(shapes))}
    facts(shapes)  # builds the index
    begun = time.perf_counter()
    assert facts(shapes).base_model == "ltx2"
    assert time.perf_counter() - begun < 0.5  # 11 ms alone on this machine
