"""How a family's LoRAs are trained, as data: what `[training]` of a `family.toml` may say."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

CHECKPOINT: Final = "{checkpoint}"
"""In a loader's input: the name of the model that is trained."""


def _plain(path: str) -> str:
    if path.startswith("/") or {"", ".", ".."} & set(path.split("/")) or "/" not in path:
        raise ValueError(f"{path!r} must be folder/file below the models folder")
    return path


def _option(text: str) -> str:
    if not text.startswith("--"):
        raise ValueError(f"{text!r} must be one option, as in '--guidance_scale=1.0'")
    return text


def _link(value: object) -> object:
    if isinstance(value, str):
        node, _, index = value.rpartition(".")
        if not (node and index.isdecimal()):
            raise ValueError(f"{value!r} must look like 'model.0' (node and number of the output)")
        return (node, int(index))
    return value


def _falling(tiers: "Sequence[Tier]") -> "Sequence[Tier]":
    sizes = [tier.memory_gb for tier in tiers]
    if sizes != sorted(set(sizes), reverse=True) or sizes[-1:] not in ([], [0]):
        raise ValueError("tiers must begin with the most memory and end with memory_gb = 0")
    return tiers


ModelFile = Annotated[str, Field(max_length=200), AfterValidator(_plain)]
Link = Annotated[tuple[str, int], BeforeValidator(_link)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tier(_Part):
    """What fits from so much GPU memory on (GB = 10^9 bytes)."""

    memory_gb: Annotated[float, Field(ge=0)]
    resolution: Annotated[int, Field(ge=256, le=1536, multiple_of=64)]
    batch_size: Annotated[int, Field(ge=1, le=16)]
    gradient_checkpointing: bool


class _Engine(_Part):
    """What an engine takes where a job says nothing; None: what it takes for SDXL."""

    rank: Annotated[int, Field(ge=1, le=128)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=0.01)] | None = None


class KohyaRecipe(_Engine):
    """sd-scripts' script for the family and its arguments beyond those of every training.

    Attributes:
        script: its file in sd-scripts' folder.
        models: option without its dashes -> the file that it names.
        arguments: one option each, `--name` or `--name=value`.
        tokenizers: folders below KOHYA_TOKENIZERS that the script reads.
    """

    script: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,60}\.py$")]
    models: Mapping[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")], ModelFile] = {}
    arguments: tuple[Annotated[str, AfterValidator(_option)], ...] = ()
    tokenizers: tuple[str, ...] = ()


class LoaderNode(_Part):
    """One node that loads; `{checkpoint}` in an input stands for the model that is trained."""

    class_type: str
    inputs: Mapping[str, bool | int | float | str]


class ComfyUIRecipe(_Engine):
    """ComfyUI's own loaders for the family, and the outputs of theirs that training needs."""

    nodes: Annotated[Mapping[str, LoaderNode], Field(min_length=1)]
    model: Link
    clip: Link
    vae: Link

    @model_validator(mode="after")
    def _links_lead_somewhere(self) -> Self:
        for name in ("model", "clip", "vae"):
            node = getattr(self, name)[0]
            if node not in self.nodes:
                raise ValueError(f"{name} names node {node!r}, which nodes lacks")
        return self

    def loaders(self, checkpoint: str) -> dict[str, dict[str, Any]]:
        """The nodes as a graph has them."""
        return {
            name: {
                "class_type": node.class_type,
                "inputs": {
                    key: checkpoint if value == CHECKPOINT else value
                    for key, value in node.inputs.items()
                },
            }
            for name, node in self.nodes.items()
        }


class Training(_Part):
    """The family's recipe.

    Attributes:
        checkpoint: the model that is trained; None: what the setting TRAIN_CHECKPOINT names.
        captions: how its text encoder wants them.
        min_modules: layers that a trained file must adapt; None: half of the model's matrices.
        tiers: by GPU memory; none: SDXL's.
    """

    checkpoint: ModelFile | None = None
    captions: Literal["tags", "sentences"] = "sentences"
    min_modules: Annotated[int, Field(ge=1)] | None = None
    tiers: Annotated[tuple[Tier, ...], AfterValidator(_falling)] = ()
    kohya: KohyaRecipe | None = None
    comfyui: ComfyUIRecipe | None = None

    @property
    def engines(self) -> tuple[str, ...]:
        """The trainers that the recipe names."""
        named = {"kohya": self.kohya, "comfyui": self.comfyui}
        return tuple(name for name, recipe in named.items() if recipe is not None)
