"""Both trainers as they really are, a few steps on the CPU; skipped where they are not there.

`KOHYA_DIR` and `KOHYA_PYTHON` name sd-scripts and its interpreter: its own parser reads our command
line. With `KOHYA_TOKENIZERS` and `KOHYA_CHECKPOINT` (an SDXL checkpoint of full size; random
weights will do) it trains. `COMFYUI_DIR` and `COMFYUI_PYTHON` name ComfyUI, which trains on
`COMFYUI_CHECKPOINT` in its checkpoints, and loads what sd-scripts trained where it has that
checkpoint too. About ten minutes on two cores.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from local.kohya.parser import OPTIONS, options_of
from tests.conformance.graphs import picture, picture_with_lora
from tests.conformance.servers import REAL_FOLDER, Server, running
from tests.loras import FAMILIES
from tests.specs import sdxl_comfyui, sdxl_kohya
from worker.cancel import CancelToken
from worker.comfyui.client import ComfyUIClient, OutputFile
from worker.comfyui.engine import ExternalComfyUI
from worker.training.comfyui import ComfyUIPlaces, ComfyUITrainer
from worker.training.kohya import KohyaTrainer
from worker.training.kohya_command import KohyaOptions, Resume, command, dataset_toml
from worker.training.trainer import PreparedDataset, TrainingSpec, TrainingStep
from worker.training.weights import Expected, check_lora, trained_layers

FOLDER = os.environ.get("KOHYA_DIR", "")
PYTHON = os.environ.get("KOHYA_PYTHON", "")
TOKENIZERS = os.environ.get("KOHYA_TOKENIZERS", "")
CHECKPOINT = os.environ.get("KOHYA_CHECKPOINT", "")
COMFYUI_CHECKPOINT = os.environ.get("COMFYUI_CHECKPOINT", "tiny_sdxl.safetensors")

needs_kohya = pytest.mark.skipif(
    not (FOLDER and PYTHON), reason="KOHYA_DIR and KOHYA_PYTHON name no real sd-scripts"
)
needs_checkpoint = pytest.mark.skipif(
    not (FOLDER and PYTHON and TOKENIZERS and CHECKPOINT),
    reason="KOHYA_TOKENIZERS and KOHYA_CHECKPOINT name nothing to train on",
)
needs_comfyui = pytest.mark.skipif(not REAL_FOLDER, reason="COMFYUI_DIR names no real ComfyUI")

# Every option of the real parser in the form of local/kohya/options.json.
LIST_OPTIONS = """
import argparse, importlib, json, sys
sys.path.insert(0, sys.argv[1])
script = importlib.import_module(sys.argv[2].removesuffix(".py"))
options = []
for action in script.setup_parser()._actions:
    if isinstance(action, argparse._HelpAction):
        continue
    takes = {0: "flag", "*": "many", "+": "many", "?": "maybe"}.get(action.nargs, "one")
    option = {"names": list(action.option_strings), "takes": takes}
    if action.type is not None:
        option["type"] = action.type.__name__
    if action.choices:
        option["choices"] = list(action.choices)
    if action.required:
        option["required"] = True
    if action.nargs in ("*", "+"):
        option["nargs"] = action.nargs
    options.append(option)
print("RESULT" + json.dumps(options))
"""
PARSE = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
script = importlib.import_module(sys.argv[2].removesuffix(".py"))
from library import config_util
args = script.setup_parser().parse_args(sys.argv[3:])
config = config_util.load_user_config(args.dataset_config)
config_util.ConfigSanitizer(True, True, False, True).sanitize_user_config(config)
print("RESULT" + json.dumps(vars(args), default=str))
"""


def asked(program: str, *argv: str) -> Any:
    """What a program in sd-scripts' own environment answers."""
    done = subprocess.run(
        [PYTHON, "-c", program, FOLDER, *argv],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout.split("RESULT", 1)[1])


@needs_kohya
@pytest.mark.parametrize("script", sorted(json.loads(OPTIONS.read_text())["scripts"]))
def test_the_pinned_options_are_the_real_ones(script: str) -> None:
    names = {json.dumps(option, sort_keys=True) for option in options_of(script)}
    assert names == {json.dumps(each, sort_keys=True) for each in asked(LIST_OPTIONS, script)}


TRAINED = sorted(
    name for name, family in FAMILIES.items() if family.training and family.training.kohya
)


@needs_kohya
@pytest.mark.parametrize("name", TRAINED)
def test_the_real_parser_of_a_family_reads_its_command_line(
    name: str, kohya: KohyaOptions, spec: TrainingSpec, dataset: PreparedDataset, tmp_path: Path
) -> None:
    recipe = FAMILIES[name].training
    assert recipe is not None
    assert recipe.kohya is not None
    models = {option: tmp_path / path for option, path in recipe.kohya.models.items()}
    options = replace(kohya, recipe=recipe.kohya, models=models)
    file = tmp_path / "dataset.toml"
    file.write_text(dataset_toml(spec, dataset))
    argv = command(options, spec, file, tmp_path / "out")
    values = asked(PARSE, recipe.kohya.script, *argv[2:])
    assert values["network_module"].startswith("networks.lora")
    assert (Path(FOLDER) / f"{values['network_module'].replace('.', '/')}.py").is_file()
    for option, path in models.items():
        assert values[option] == str(path)
    assert (values["output_name"], values["network_dim"]) == (spec.name, spec.rank)


@needs_kohya
def test_the_real_parser_reads_our_command_line(
    kohya: KohyaOptions, spec: TrainingSpec, dataset: PreparedDataset, tmp_path: Path
) -> None:
    file = tmp_path / "dataset.toml"
    file.write_text(dataset_toml(spec, dataset))
    argv = command(kohya, spec, file, tmp_path / "out", Resume(tmp_path / "state", 7))
    values = asked(PARSE, "sdxl_train_network.py", *argv[2:])
    expected = {
        "output_name": spec.name,
        "network_dim": spec.rank,
        "network_alpha": spec.alpha,
        "max_train_steps": spec.steps,
        "lr_warmup_steps": 0.05,
        "learning_rate": spec.learning_rate,
        "initial_step": 7,
        "skip_until_initial_step": True,
        "save_every_n_steps": spec.save_every,
        "cache_text_encoder_outputs": True,
        "gradient_checkpointing": False,
        "seed": spec.seed,
    }
    assert {name: values[name] for name in expected} == expected


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small photos with captions."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        path = folder / f"{number:03d}.png"
        Image.fromarray(pixels).resize((140, 130)).save(path)
        path.with_suffix(".txt").write_text(f"mrzkqv person {number}")
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA after six real steps of sd-scripts."""
    options = KohyaOptions(
        Path(FOLDER),
        PYTHON,
        Path(CHECKPOINT),
        Path(TOKENIZERS),
        sdxl_kohya(),
        stall_timeout_s=1800,
    )
    steps: list[TrainingStep] = []
    path = KohyaTrainer(options).train(
        small_spec(steps=6, side=128),
        PreparedDataset(photos, (), "0"),
        tmp_path_factory.mktemp("kohya"),
        steps.append,
        CancelToken(),
    )
    assert steps[-1].step == 6
    assert steps[-1].loss is not None
    return path


def small_spec(*, steps: int, side: int) -> TrainingSpec:
    return TrainingSpec(
        name="mira-0123456789ab",
        trigger="mrzkqv",
        class_noun="person",
        steps=steps,
        rank=2,
        alpha=1.0,
        learning_rate=1e-3,
        resolution=side,
        batch_size=1,
        gradient_checkpointing=True,
        seed=42,
        save_every=max(1, steps // 2),
        deadline_s=3600,
    )


@needs_checkpoint
def test_sd_scripts_trains_every_layer_of_the_checkpoint(trained: Path) -> None:
    layers = trained_layers(Path(CHECKPOINT))
    assert len(layers) == 722
    found = check_lora(trained, Expected(2, 1.0, layers))
    assert found.modules == found.modules_learned == 722


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("real", tmp_path_factory.mktemp("comfyui")) as server:
        yield server


class Painter:
    """Same-seed pictures, and what the server said meanwhile."""

    def __init__(self, server: Server, checkpoint: str) -> None:
        self.server = server
        self.checkpoint = checkpoint
        self.client = ComfyUIClient(ExternalComfyUI(f"http://{server.address}"))

    def paint(self, graph: dict[str, Any]) -> np.ndarray[Any, Any]:
        graph["4"]["inputs"]["ckpt_name"] = self.checkpoint
        found: list[OutputFile] = []
        self.client.run(
            graph,
            timeout_s=1200,
            cancel=CancelToken(),
            on_step=lambda _: None,
            on_files=lambda _, files: found.extend(files),
        )
        with self.client.opened(found[0]) as path, Image.open(path) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    def assert_lora_works(self, path: Path) -> None:
        """It loads whole, and changes a picture that does not change by itself."""
        shutil.copyfile(path, self.server.loras / "trained.safetensors")
        plain = self.paint(picture("plain", seed=5))
        assert (self.paint(picture("again", seed=5)) == plain).all()
        changed = self.paint(picture_with_lora("with", "trained.safetensors", seed=5))
        assert (changed != plain).any()
        assert "lora key not loaded" not in self.server.log.read_text(errors="replace")


@needs_checkpoint
@needs_comfyui
def test_comfyui_loads_what_sd_scripts_trained(comfyui: Server, trained: Path) -> None:
    name = Path(CHECKPOINT).name
    if not (Path(REAL_FOLDER) / "models" / "checkpoints" / name).exists():
        pytest.skip(f"ComfyUI has no {name} among its checkpoints")
    with Painter(comfyui, name).client:
        Painter(comfyui, name).assert_lora_works(trained)


@needs_comfyui
def test_comfyui_trains_and_loads_its_own(
    comfyui: Server, tmp_path: Path, dataset: PreparedDataset
) -> None:
    painter = Painter(comfyui, COMFYUI_CHECKPOINT)
    places = ComfyUIPlaces(
        COMFYUI_CHECKPOINT, comfyui.input, comfyui.output, "real", sdxl_comfyui()
    )
    steps: list[TrainingStep] = []
    with painter.client as client:
        path = ComfyUITrainer(client, places).train(
            replace(small_spec(steps=4, side=64), learning_rate=1e-2),
            dataset,
            tmp_path,
            steps.append,
            CancelToken(),
        )
        assert steps[-1].step == 4
        assert not list(comfyui.input.glob("train-*"))
        assert not list(comfyui.output.rglob("*.safetensors"))
        layers = trained_layers(Path(REAL_FOLDER) / "models" / "checkpoints" / COMFYUI_CHECKPOINT)
        found = check_lora(path, Expected(2, None, layers))
        assert (found.modules or 0) >= len(layers)
        painter.assert_lora_works(path)
