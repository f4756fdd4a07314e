from pathlib import Path

from worker.assembly import model_folders


def test_every_folder_of_a_volume_is_one_that_comfyui_looks_into(tmp_path: Path) -> None:
    for name in ("audio_encoders", "ultralytics", ".cache", "t2i_adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "readme.txt").touch()
    found = model_folders([tmp_path, tmp_path / "gone"])
    assert found["audio_encoders"] == (
        tmp_path / "audio_encoders",
        tmp_path / "gone/audio_encoders",
    )
    assert tmp_path / "ultralytics" in found["ultralytics"]
    assert tmp_path / "t2i_adapter" in found["controlnet"]
    assert tmp_path / "style_models" in found["style_models"]  # it may come later
    assert found.keys().isdisjoint({".cache", "readme.txt", "t2i_adapter"})
