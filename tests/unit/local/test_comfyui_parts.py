"""The stand-in's smaller parts: options, folders, cache, schedule, faults, LoRA files."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from local.comfyui import nodes
from local.comfyui.cache import Result, ResultCache
from local.comfyui.catalogue import Catalogue
from local.comfyui.faults import Faults, UnknownFault
from local.comfyui.folders import Folders, OutsideOutputFolder, SavePath
from local.comfyui.nodes_training import write
from local.comfyui.options import parse
from local.comfyui.schedule import Schedule
from local.comfyui.values import TrainedLora


@pytest.fixture(name="folders")
def _folders(tmp_path: Path) -> Folders:
    return Folders(
        models=tmp_path / "models",
        output=tmp_path / "output",
        input=tmp_path / "input",
        temp=tmp_path / "temp",
    )


def test_options_are_those_of_comfyui(tmp_path: Path) -> None:
    options = parse(
        [
            *("--listen", "127.0.0.1", "--port", "1234", "--base-directory", str(tmp_path)),
            *("--output-directory", str(tmp_path / "o"), "--cpu", "--disable-api-nodes"),
            *("--database-url", "sqlite:///:memory:", "--cache-ram", "4", "8"),
            *("--extra-model-paths-config", "a.yaml", "b.yaml"),
        ]
    )
    assert (options.port, options.output) == (1234, tmp_path / "o")
    assert (options.input, options.models) == (tmp_path / "input", tmp_path / "models")
    assert [path.name for path in options.extra_model_paths] == ["a.yaml", "b.yaml"]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        parse(["--no-such-option"])
    assert refused.value.code == 2


def test_models_are_found_in_extra_paths_with_their_subfolders(
    folders: Folders, tmp_path: Path
) -> None:
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "b.safetensors").touch()
    (tmp_path / "cache" / "note.txt").touch()
    (tmp_path / "models" / "loras").mkdir(parents=True)
    (tmp_path / "models" / "loras" / "a.safetensors").touch()
    config = tmp_path / "extra.yaml"
    config.write_text(
        "characters:\n  base_path: .\n  is_default: true\n  loras: cache\n  unet: u\n"
    )
    folders.add_extra_paths(config)
    assert folders.models("loras") == ["a.safetensors", "deep/b.safetensors"]
    assert folders.model("loras", "deep/b.safetensors").is_file()
    with pytest.raises(FileNotFoundError):
        folders.model("loras", "../../extra.yaml")


def test_nothing_is_saved_outside(folders: Folders) -> None:
    for prefix in ("../x", "/x", "a/../../x", "../output-2/x"):
        with pytest.raises(OutsideOutputFolder):
            SavePath(folders.output, prefix)


def test_file_numbers_count_on_by_prefix(folders: Folders) -> None:
    for name in ("x_00007_.png", "x_y_00099_.png", "xx_00050_.png", "x_readme.txt"):
        (folders.output / name).touch()
    assert SavePath(folders.output, "x").next_name(".png") == "x_00008_.png"
    assert SavePath(folders.output, "s/%width%x%height%", width=8, height=9).next_name("") == (
        "8x9_00001_"
    )


def test_the_cache_keeps_what_the_last_prompt_used() -> None:
    cache = ResultCache()
    for name in ("a", "b"):
        cache.put(name, Result([]))
    cache.release(["a", "c"])
    assert cache.get("a") is not None
    assert cache.get("b") is None
    cache.clear()
    assert cache.get("a") is None


def test_an_output_that_is_ready_goes_first() -> None:
    graph = {
        "far": {"class_type": "Make", "inputs": {}},
        "near": {"class_type": "Make", "inputs": {}},
        "step": {"class_type": "Make", "inputs": {"of": ["far", 0]}},
        "save": {"class_type": "Save", "inputs": {"a": ["near", 0]}},
        "late": {"class_type": "Save", "inputs": {"a": ["step", 0]}},
    }
    schedule = Schedule(
        graph,
        ["late", "save"],
        is_output="Save".__eq__,
        is_cached=lambda _: False,
    )
    order = []
    while schedule:
        order.append(schedule.next())
        schedule.done(order[-1])
    assert order == ["near", "save", "far", "step", "late"]


def test_a_fault_happens_as_often_as_asked() -> None:
    faults = Faults()
    faults.set({"crash_at": "step:2", "times": 2, "step_latency_s": 0.5})
    assert not faults.due("crash_at", "step:1")
    assert [faults.due("crash_at", "step:2") for _ in range(3)] == [True, True, False]
    assert faults.latency_s("step_latency_s") == 0.5
    faults.clear()
    assert faults.latency_s("step_latency_s") == 0


def test_a_restart_does_not_cause_a_fault_again(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"start_fail": True, "load_latency_s": 1}))
    assert Faults(file).due("start_fail")
    again = Faults(file)
    assert not again.due("start_fail")
    assert again.latency_s("load_latency_s") == 1


def test_faults_of_one_file_are_counted_apart(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps([{"disk_full": True, "times": 2}, {"crash_at": "start"}]))
    faults = Faults(file)
    assert faults.due("crash_at", "start")
    faults.reload()
    assert not faults.due("crash_at", "start")
    assert [faults.due("disk_full") for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("given", [{"explode": 1}, {"disk_full": True, "times": "x"}])
def test_an_unknown_fault_changes_nothing(given: dict[str, object]) -> None:
    faults = Faults()
    with pytest.raises(UnknownFault):
        faults.set({"step_latency_s": 9, **given})
    assert faults.latency_s("step_latency_s") == 0


def test_a_trained_lora_has_the_layers_of_sdxl(tmp_path: Path) -> None:
    write(tmp_path / "lora.safetensors", TrainedLora(rank=2, steps=5, seed=1))
    with safe_open(tmp_path / "lora.safetensors", "np") as file:
        names = list(file.keys())
        assert len([name for name in names if name.endswith("lora_up.weight")]) == 722
        name = "diffusion_model.middle_block.1.transformer_blocks.9.attn2.to_k.lora_down.weight"
        assert file.get_slice(name).get_shape() == [2, 2048]


def test_every_node_that_is_offered_can_be_run(folders: Folders) -> None:
    assert set(Catalogue(folders).names()) == set(nodes.functions())
