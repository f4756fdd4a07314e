import tomllib
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local.kohya.parser import parser
from worker.training.kohya_command import KohyaOptions, Resume, command, dataset_toml, environment
from worker.training.trainer import PreparedDataset, PreparedPhoto, TrainingSpec


def parsed(argv: list[str]) -> dict[str, object]:
    return vars(parser().parse_args(argv[2:]))


def test_every_option_is_one_of_the_real_parser(kohya: KohyaOptions, spec: TrainingSpec) -> None:
    argv = command(kohya, spec, Path("/d/dataset.toml"), Path("/d/out"))
    values = parsed(argv)
    assert argv[1].endswith("sdxl_train_network.py")
    assert int(str(values["max_token_length"])) == 225
    assert values["network_dim"] == 2
    assert values["network_alpha"] == 1.0
    assert values["max_train_steps"] == 12
    assert values["lr_warmup_steps"] == 0.05
    assert values["save_every_n_steps"] == 5
    assert values["learning_rate"] == values["unet_lr"] == 1e-4
    assert values["cache_text_encoder_outputs"]
    assert values["network_train_unet_only"]
    assert not values["gradient_checkpointing"]
    assert values["resume"] is None


def test_options_are_whole_words(kohya: KohyaOptions, spec: TrainingSpec) -> None:
    """argparse takes any unambiguous beginning; a later release may make ours ambiguous."""
    names = {name for action in parser()._actions for name in action.option_strings}
    resume = Resume(Path("/d/state"), 5)
    argv = command(kohya, spec, Path("/d/dataset.toml"), Path("/d/out"), resume)
    given = [word.split("=")[0] for word in argv if word.startswith("--")]
    assert set(given) <= names
    assert len(given) == len(set(given))


def test_resuming_names_state_and_true_step(kohya: KohyaOptions, spec: TrainingSpec) -> None:
    values = parsed(command(kohya, spec, Path("/d/t"), Path("/d"), Resume(Path("/d/state"), 5)))
    assert values["resume"] == "/d/state"
    assert values["initial_step"] == 5
    assert values["skip_until_initial_step"] is True


def test_the_checkpoint_is_passed_by_its_real_path(
    kohya: KohyaOptions, spec: TrainingSpec, tmp_path: Path
) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(kohya.checkpoint.name)
    argv = command(replace(kohya, checkpoint=link), spec, Path("/d/t"), Path("/d"))
    assert parsed(argv)["pretrained_model_name_or_path"] == str(kohya.checkpoint.resolve())


def test_values_that_look_like_options_stay_values(kohya: KohyaOptions, spec: TrainingSpec) -> None:
    values = parsed(command(kohya, replace(spec, name="--v2"), Path("-t"), Path("--seed")))
    assert values["output_name"] == "--v2"
    assert values["output_dir"] == "--seed"
    assert not values["v2"]


def test_dataset_file(spec: TrainingSpec, dataset: PreparedDataset) -> None:
    document = tomllib.loads(dataset_toml(spec, dataset))
    assert document["general"] == {"caption_extension": ".txt"}
    (table,) = document["datasets"]
    assert table["resolution"] == [512, 512]
    assert table["batch_size"] == 2
    assert table["min_bucket_reso"] == 256
    assert table["max_bucket_reso"] == 1024
    (subset,) = table["subsets"]
    assert subset["image_dir"] == str(dataset.folder)
    assert subset["class_tokens"] == "mrzkqv person"


def test_buckets_at_sdxls_resolution(spec: TrainingSpec, dataset: PreparedDataset) -> None:
    document = tomllib.loads(dataset_toml(replace(spec, resolution=1024), dataset))
    (table,) = document["datasets"]
    assert (table["min_bucket_reso"], table["max_bucket_reso"]) == (512, 2048)


@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_class_noun_survives_toml(text: str) -> None:
    spec = TrainingSpec("n", "t", text, 1, 1, 1.0, 1e-4, 512, 1, True, 0, 1, 1.0)  # noqa: FBT003 - positions of a dataclass
    photo = PreparedPhoto(Path('/a"\\b/000.png'), "", "0", 1, 1)
    dataset = PreparedDataset(photo.path.parent, (photo,), "0")
    document = tomllib.loads(dataset_toml(spec, dataset))
    (subset,) = document["datasets"][0]["subsets"]
    assert subset["class_tokens"] == f"t {text}"
    assert subset["image_dir"] == '/a"\\b'


def test_the_trainer_never_goes_to_the_network() -> None:
    assert environment(Path("/d"))["HF_HUB_OFFLINE"] == "1"
