import re
from pathlib import Path

import pytest

from worker.errors import InvalidSettings
from worker.settings import Settings, default_python, inherited_environment

ROOT = Path(__file__).resolve().parents[3]
GIVEN = {
    "S3_BUCKET": "characters",
    "S3_ACCESS_KEY_ID": "key-id",
    "S3_SECRET_ACCESS_KEY": "very-secret",
}


def complaint(**changes: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment(GIVEN | changes)
    return str(caught.value)


def test_three_variables_are_enough() -> None:
    settings = Settings.from_environment(GIVEN)
    assert settings.s3_bucket == "characters"
    assert settings.loras_folder == settings.work_dir / "loras"


def test_every_missing_setting_has_a_line_of_its_own() -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment({})
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == sorted(GIVEN, key=list(GIVEN).index)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORAGE_PROVIDER", "gcs"),
        ("COMFYUI_PORT", "eighty"),
        ("COMFYUI_PORT", "70000"),
        ("URL_EXPIRES_S", "5"),
        ("COMFYUI_URL", "ftp://x"),
        ("WORKER_TASKS", "image,sing"),
        ("S3_PREFIX", "/../x"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    assert complaint(**{name: value}).startswith(f"{name}: ")


def test_supabase_needs_its_project() -> None:
    assert "SUPABASE_PROJECT_REF" in complaint(STORAGE_PROVIDER="supabase")


def test_empty_counts_as_absent_and_runpods_names_stand_in() -> None:
    given = {
        "BUCKET_ENDPOINT_URL": "https://s3.example.com",
        "BUCKET_ACCESS_KEY_ID": "id",
        "BUCKET_SECRET_ACCESS_KEY": "secret",
        "S3_BUCKET": "b",
        "LOG_LEVEL": "",
    }
    settings = Settings.from_environment(given)
    assert settings.s3_endpoint_url == "https://s3.example.com"
    assert settings.log_level == "INFO"


@pytest.mark.parametrize(
    ("bucket", "key_id", "secret"),
    [
        ("BUCKET_NAME", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY"),
        ("STORAGE_BUCKET", "STORAGE_ACCESS_KEY", "STORAGE_SECRET_KEY"),
        ("STORAGE_BUCKET_NAME", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_names_set_elsewhere_stand_in_for_ours(bucket: str, key_id: str, secret: str) -> None:
    settings = Settings.from_environment({bucket: "b", key_id: "i", secret: "s"})
    assert settings.s3_bucket == "b"
    assert settings.s3_access_key_id == "i"
    assert settings.s3_secret_access_key.get_secret_value() == "s"


def test_our_own_name_wins_over_an_alias() -> None:
    settings = Settings.from_environment(GIVEN | {"STORAGE_BUCKET": "other", "S3_REGION": ""})
    assert settings.s3_bucket == "characters"


@pytest.mark.parametrize(("given", "read"), [("ws", "http"), ("wss", "https"), ("http", "http")])
def test_comfyuis_address_may_be_its_websockets(given: str, read: str) -> None:
    settings = Settings.from_environment(GIVEN | {"COMFYUI_URL": f"{given}://host:8188"})
    assert settings.comfyui_url == f"{read}://host:8188"


def test_no_name_of_a_secret_reaches_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORAGE_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "RUNPOD_API_KEY"):
        monkeypatch.setenv(name, "hush")
    assert "hush" not in inherited_environment().values()


def test_secrets_are_never_shown() -> None:
    settings = Settings.from_environment(GIVEN)
    assert "very-secret" not in repr(settings) + str(settings.model_dump())
    assert "very-secret" not in complaint(COMFYUI_PORT="x")


def test_two_jobs_at_a_time_unless_it_trains() -> None:
    assert Settings.from_environment(GIVEN).concurrency == 1
    generating = GIVEN | {"WORKER_TASKS": "image, video"}
    assert Settings.from_environment(generating).concurrency == 4
    assert Settings.from_environment(generating | {"JOBS_IN_FLIGHT": "8"}).concurrency == 8
    assert Settings.from_environment(GIVEN | {"JOBS_IN_FLIGHT": "8"}).concurrency == 1


def test_children_get_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "very-secret")
    given = inherited_environment(HF_HUB_OFFLINE="1")
    assert "very-secret" not in given.values()
    assert given["HF_HUB_OFFLINE"] == "1"


def test_a_programs_own_interpreter_is_found(tmp_path: Path) -> None:
    own = tmp_path / ".venv" / "bin" / "python"
    assert default_python(tmp_path, "/usr/bin/python3") == "/usr/bin/python3"
    own.parent.mkdir(parents=True)
    own.touch()
    assert default_python(tmp_path, None) == str(own)


def names() -> list[str]:
    return [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize("name", names())
def test_every_setting_stands_in_readme_and_example(name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text()
    if not name.startswith("RUNPOD_"):
        assert re.search(rf"^#? ?{name}=", (ROOT / ".env.example").read_text(), re.MULTILINE)


def test_readme_and_example_name_no_setting_that_is_not_there() -> None:
    table = set(re.findall(r"^\| `([A-Z0-9_]+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    example = set(
        re.findall(r"^#? ?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    )
    assert table == set(names())
    assert example <= set(names())
