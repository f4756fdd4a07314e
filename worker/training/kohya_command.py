"""The command line, dataset file and environment of sd-scripts' LoRA trainings; pure.

What every training shares is here, what a family's needs is in its `family.toml`. Options as
sd-scripts v0.10.1 parses them; `local/kohya/options.json` pins its parsers' lists and the tests
hold every command built here against them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from families.training import KohyaRecipe
from worker.training.trainer import PreparedDataset, TrainingSpec

VERSION: Final = "sd-scripts v0.10.1"
# Three times what CLIP reads at once; sd-scripts encodes it in parts. SDXL's recipe says so too.
MAX_TOKENS: Final = 225
_BUCKET_STEP: Final = 64


@dataclass(frozen=True, slots=True)
class KohyaOptions:
    """Where sd-scripts and what it needs are.

    Attributes:
        folder: sd-scripts' checkout.
        python: the interpreter of its environment.
        checkpoint: the model to train on.
        tokenizers: folder of the two CLIP tokenizers, so that nothing is downloaded.
        recipe: of the model's family: script and arguments.
        models: the further files that the recipe names, by option.
        stall_timeout_s: longest silence (no byte of output) before it counts as hung.
    """

    folder: Path
    python: str
    checkpoint: Path
    tokenizers: Path
    recipe: KohyaRecipe
    models: Mapping[str, Path] = field(default_factory=dict)
    stall_timeout_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Resume:
    """A saved state and the true number of steps it stands for."""

    state: Path
    step: int


def command(
    options: KohyaOptions,
    spec: TrainingSpec,
    dataset_file: Path,
    output: Path,
    resume: Resume | None = None,
) -> list[str]:
    """The argv of one training.

    Plain python, no `accelerate launch`: that one's child survives a kill. The checkpoint's real
    path is passed, because sd-scripts resolves relative symlinks against its own folder.
    """
    argv = [options.python, str(options.folder / options.recipe.script)]
    argv += _model(options, dataset_file)
    argv += _output(spec, output)
    argv += _network(spec)
    argv += _optimizer(spec)
    argv += _execution(spec)
    argv += options.recipe.arguments
    if resume is not None:
        # --initial_step: what the state itself says is wrong after a second resume (kohya_state).
        argv += ["--resume", str(resume.state), "--initial_step", str(resume.step)]
        argv += ["--skip_until_initial_step"]
    return argv


def _model(options: KohyaOptions, dataset_file: Path) -> list[str]:
    return [
        f"--pretrained_model_name_or_path={options.checkpoint.resolve()}",
        f"--tokenizer_cache_dir={options.tokenizers}",
        f"--dataset_config={dataset_file}",
        *(f"--{option}={path.resolve()}" for option, path in options.models.items()),
    ]


def _output(spec: TrainingSpec, output: Path) -> list[str]:
    return [
        f"--output_dir={output}",
        f"--output_name={spec.name}",
        *("--save_model_as", "safetensors", "--save_precision", "fp16"),
        *("--save_every_n_steps", str(spec.save_every), "--save_last_n_steps", "1"),
        *("--save_state", "--save_last_n_steps_state", "1"),
        f"--metadata_title={spec.name}",
        f"--metadata_trigger_phrase={spec.trigger}",
        "--console_log_simple",
    ]


def _network(spec: TrainingSpec) -> list[str]:
    return [
        "--network_train_unet_only",
        *("--network_dim", str(spec.rank), "--network_alpha", f"{spec.alpha:g}"),
    ]


def _optimizer(spec: TrainingSpec) -> list[str]:
    rate = f"{spec.learning_rate:g}"
    return [
        *("--optimizer_type", "AdamW", "--optimizer_args", "weight_decay=0.01"),
        *("--learning_rate", rate, "--unet_lr", rate),
        *("--lr_scheduler", "cosine", "--lr_warmup_steps", "0.05"),
        *("--max_grad_norm", "1.0", "--max_train_steps", str(spec.steps)),
        *("--seed", str(spec.seed)),
    ]


def _execution(spec: TrainingSpec) -> list[str]:
    argv = ["--mixed_precision", "bf16", "--sdpa", "--cache_latents", "--vae_batch_size", "1"]
    argv += ["--max_data_loader_n_workers", "0"]
    return [*argv, "--gradient_checkpointing"] if spec.gradient_checkpointing else argv


def dataset_toml(spec: TrainingSpec, dataset: PreparedDataset) -> str:
    """The dataset file; `caption_extension` because sd-scripts' own default is `.caption`."""
    side = spec.resolution
    smallest = max(_BUCKET_STEP, side // 2 // _BUCKET_STEP * _BUCKET_STEP)
    lines = [
        "[general]",
        'caption_extension = ".txt"',
        "",
        "[[datasets]]",
        f"resolution = [{side}, {side}]",
        f"batch_size = {spec.batch_size}",
        "enable_bucket = true",
        f"min_bucket_reso = {smallest}",
        f"max_bucket_reso = {side * 2}",
        f"bucket_reso_steps = {_BUCKET_STEP}",
        "bucket_no_upscale = true",
    ]
    for folder, repeats in sorted({(photo.path.parent, photo.repeats) for photo in dataset.photos}):
        lines += [
            "",
            "[[datasets.subsets]]",
            f"image_dir = {_quoted(str(folder))}",
            f"class_tokens = {_quoted(f'{spec.trigger} {spec.class_noun}')}",
            f"num_repeats = {repeats}",
        ]
    return "\n".join(lines) + "\n"


def environment(output: Path) -> dict[str, str]:
    """Variables on top of the inherited ones: no network, unbuffered, caches in the job's own."""
    return {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "TRITON_CACHE_DIR": str(output / "triton"),
    }


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
