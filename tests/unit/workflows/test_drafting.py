import json
from pathlib import Path

import pytest

from workflows.__main__ import main
from workflows.drafting import draft
from workflows.graph import Graph
from workflows.library import load

ROOT = Path(__file__).resolve().parents[3]

# The shape of Flux and Wan exports: a guider, a scheduler of its own, two pictures, a mask.
GUIDED: Graph = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors"}},
    "2": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "t5.safetensors"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["2", 0]}},
    "4": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["3", 0], "guidance": 3.5}},
    "5": {"class_type": "BasicGuider", "inputs": {"model": ["1", 0], "conditioning": ["4", 0]}},
    "6": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
    "7": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "8": {
        "class_type": "BasicScheduler",
        "inputs": {"model": ["1", 0], "scheduler": "simple", "steps": 20, "denoise": 1.0},
    },
    "9": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["6", 0],
            "guider": ["5", 0],
            "sampler": ["7", 0],
            "sigmas": ["8", 0],
            "latent_image": ["10", 0],
        },
    },
    "10": {
        "class_type": "VAEEncodeForInpaint",
        "inputs": {"pixels": ["11", 0], "mask": ["12", 1], "vae": ["13", 0]},
    },
    "11": {"class_type": "LoadImage", "inputs": {"image": "street.png"}},
    "12": {"class_type": "LoadImage", "inputs": {"image": "mask.png"}},
    "13": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}},
    "14": {"class_type": "VAEDecode", "inputs": {"samples": ["9", 0], "vae": ["13", 0]}},
    "15": {"class_type": "SaveImage", "inputs": {"images": ["14", 0], "filename_prefix": "x"}},
    "16": {"class_type": "PreviewImage", "inputs": {"images": ["14", 0]}},
}


def test_a_guided_graph_is_read_to_its_ends() -> None:
    found = draft(GUIDED)
    assert {role: [str(slot) for slot in slots] for role, slots in found.roles.items()} == {
        "prompt": ["3.text"],
        "steps": ["8.steps"],
        "sampler": ["7.sampler_name"],
        "scheduler": ["8.scheduler"],
        "seed": ["6.noise_seed"],
        "denoise": ["8.denoise"],
    }
    assert {name: (str(slot), kind) for name, (slot, kind) in found.inputs.items()} == {
        "init_image": ("11.image", "image"),
        "mask": ("12.image", "mask"),
    }
    assert [(str(model), str(clip)) for model, clip in found.chains] == [("1.0", "2.0")]
    assert found.base_model == "flux"
    assert any("node 16 only previews" in line for line in found.unsure)


@pytest.mark.parametrize("name", ["sdxl", "sdxl_img2img", "svd"])
def test_a_draft_of_what_we_ship_finds_what_we_declared(name: str) -> None:
    ours = load(ROOT / "workflows" / name)
    found = draft({node: dict(spec) for node, spec in ours.graph.items()})
    for role, slots in found.roles.items():
        assert tuple(slots) == ours.roles[role], role
    assert {name: slot for name, (slot, _) in found.inputs.items()} == {
        name: given.bind[0] for name, given in ours.inputs.items()
    }
    if ours.loras:
        assert found.chains == [(chain.model, chain.clip) for chain in ours.loras]


def test_the_command_writes_a_folder_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "export.json"
    export.write_text(json.dumps(GUIDED))
    assert main(["--folder", str(tmp_path), "draft", str(export), "mine"]) == 0
    assert load(tmp_path / "mine").inputs["mask"].kind == "mask"
    assert main(["--folder", str(tmp_path), "draft", str(export), "mine"]) == 1
    assert main(["--folder", str(tmp_path), "check", "mine"]) == 0
    assert main(["--folder", str(tmp_path), "list"]) == 0
    assert "mine: mine (image); takes prompt" in capsys.readouterr().out


def test_an_export_for_the_screen_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "export.json"
    export.write_text('{"nodes": [], "links": []}')
    assert main(["--folder", str(tmp_path), "draft", str(export), "mine"]) == 1
    assert "Workflow" in capsys.readouterr().out
    assert not (tmp_path / "mine").exists()


def test_the_command_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "workflow.toml").write_text("titel = 1")
    (tmp_path / "mine" / "graph.json").write_text("{}")
    assert main(["--folder", str(tmp_path), "check", "mine"]) == 1
    assert "did you mean title?" in capsys.readouterr().out
    assert main(["--folder", str(tmp_path), "check", "gone"]) == 1
    assert main(["--folder", str(tmp_path), "list"]) == 1
    address = [
        "--folder",
        str(ROOT / "workflows"),
        "check",
        "sdxl",
        "--comfyui",
        "http://127.0.0.1:9",
    ]
    assert main(address) == 1
    assert "ComfyUI does not answer" in capsys.readouterr().out
