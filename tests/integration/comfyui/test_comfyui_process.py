import dataclasses
import http.server
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.cancel import CancelToken
from worker.comfyui.engine import Engine, ExternalComfyUI, listens
from worker.comfyui.http import ComfyUIHTTP
from worker.comfyui.process import ComfyUIOptions, ComfyUIProcess
from worker.errors import Cancelled, EngineUnavailable


def variant(options: ComfyUIOptions, code: str, **changes: object) -> ComfyUIOptions:
    """A program of a few lines in ComfyUI's place."""
    return dataclasses.replace(options, entry=("-c", code), **changes)  # type: ignore[arg-type]


def test_ready_or_raised(options: ComfyUIOptions, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ComfyUIProcess(options) as engine:
        begun = time.monotonic()
        engine.wait_ready()
        engine.wait_ready()
        assert engine.generation == 1
        assert time.monotonic() - begun < 20
        assert engine.alive
        said = [record.getMessage() for record in caplog.records if record.name == "comfyui"]
        assert any("To see the GUI" in line for line in said)
    assert not listens(engine.url)
    assert not list(options.temp_directory.glob("model-folders-*"))


def test_start_returns_at_once_and_starts_once(options: ComfyUIOptions) -> None:
    engine = ComfyUIProcess(options)
    begun = time.monotonic()
    engine.start()
    with engine:
        assert time.monotonic() - begun < 0.3
        assert engine.generation == 1


def test_an_early_death_is_told_with_its_last_words(options: ComfyUIOptions) -> None:
    words = "ImportError: cannot load /opt/x/torch.so"
    code = f"import sys; print('loading', flush=True); sys.exit('{words}')"
    with ComfyUIProcess(variant(options, code)) as engine:
        begun = time.monotonic()
        with pytest.raises(EngineUnavailable, match="exit code 1") as caught:
            engine.wait_ready()
        assert time.monotonic() - begun < 5
        assert caught.value.details["exit_code"] == 1
        assert caught.value.details["output"] == ["loading", "ImportError: cannot load torch.so"]
        assert "/" not in str(caught.value)
        assert str(caught.value).endswith("ImportError: cannot load torch.so")


def test_a_program_that_is_not_there(options: ComfyUIOptions) -> None:
    engine = ComfyUIProcess(dataclasses.replace(options, python="/no/such/python"))
    with pytest.raises(EngineUnavailable, match="could not start") as caught:
        engine.start()
    assert "/no" not in str(caught.value)
    engine.stop()


def test_one_that_never_answers_is_too_late(options: ComfyUIOptions) -> None:
    silent = variant(options, "import time; time.sleep(60)", start_timeout_s=0.3)
    with ComfyUIProcess(silent) as engine, pytest.raises(EngineUnavailable, match="in time"):
        engine.wait_ready()


def test_the_wait_can_be_cancelled(options: ComfyUIOptions) -> None:
    cancel = CancelToken()
    threading.Timer(0.2, cancel.cancel).start()
    with (
        ComfyUIProcess(variant(options, "import time; time.sleep(60)")) as engine,
        pytest.raises(Cancelled),
    ):
        engine.wait_ready(cancel)


def test_killed_while_it_starts(options: ComfyUIOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_STAND_IN_FAULTS", str(options.temp_directory / "faults.json"))
    options.make_folders()
    (options.temp_directory / "faults.json").write_text(json.dumps({"start_delay_s": 1.0}))
    with ComfyUIProcess(options) as engine:
        assert engine.pid is not None
        threading.Timer(0.3, os.kill, (engine.pid, signal.SIGKILL)).start()
        engine.ensure_ready()
        assert engine.generation == 2


def test_one_that_cannot_start_is_given_up(options: ComfyUIOptions) -> None:
    with ComfyUIProcess(variant(options, "raise SystemExit(1)")) as engine:
        with pytest.raises(EngineUnavailable):
            engine.ensure_ready()
        assert engine.generation == 3


def test_many_notice_a_death_and_one_restarts(options: ComfyUIOptions) -> None:
    with ComfyUIProcess(options) as engine:
        engine.wait_ready()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        threads = [threading.Thread(target=engine.restart, args=(1,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert engine.generation == 2
        assert engine.alive


def test_restarts_pause_longer_as_failures_follow_each_other(options: ComfyUIOptions) -> None:
    with ComfyUIProcess(variant(options, "raise SystemExit(1)")) as engine:
        begun = time.monotonic()
        for _ in range(3):
            with pytest.raises(EngineUnavailable):
                engine.restart()
        assert time.monotonic() - begun > 3.0  # 0, 1 and 2 s
        # A stop does not wait for the pause of a restart that is under way (4 s now).
        thread = threading.Thread(target=pytest.raises, args=(EngineUnavailable, engine.restart))
        thread.start()
        begun = time.monotonic()
        engine.stop()
        thread.join(10)
        assert time.monotonic() - begun < 2.0


def test_a_stopped_engine_stays_stopped(options: ComfyUIOptions) -> None:
    engine = ComfyUIProcess(options)
    engine.start()
    engine.stop()
    engine.stop()
    with pytest.raises(EngineUnavailable):
        engine.restart()
    with pytest.raises(EngineUnavailable):
        engine.ensure_ready()


def test_a_strangers_server_is_refused(options: ComfyUIOptions) -> None:
    """Something that answers like ComfyUI at our port, while our child does not."""
    with ComfyUIProcess(options) as stranger:
        stranger.wait_ready()
        port = int(stranger.url.rsplit(":", 1)[1])
        ours = variant(options, "import time; time.sleep(60)", port=port)
        with (
            ComfyUIProcess(ours) as engine,
            pytest.raises(EngineUnavailable, match="Another server"),
        ):
            engine.wait_ready()


def test_another_version_is_refused(options: ComfyUIOptions) -> None:
    other = dataclasses.replace(options, expected_version="0.1.2")
    with (
        ComfyUIProcess(other) as engine,
        pytest.raises(EngineUnavailable, match=r"0\.33\.0 .* 0\.1\.2 is expected"),
    ):
        engine.wait_ready()


def test_extra_model_folders_are_seen(options: ComfyUIOptions, tmp_path: Path) -> None:
    odd = tmp_path / 'lörås "x": #1'
    odd.mkdir()
    (odd / "a.safetensors").touch()
    more = dataclasses.replace(options, models={"loras": [tmp_path / "none", odd]})
    with ComfyUIProcess(more) as engine:
        engine.wait_ready()
        (odd / "later.safetensors").touch()
        http = ComfyUIHTTP(engine.url)
        spec = http.object_info("LoraLoader")["LoraLoader"]["input"]["required"]["lora_name"]
        http.close()
        assert {"a.safetensors", "later.safetensors"} <= set(spec[0])


class _NotComfyUI(http.server.BaseHTTPRequestHandler):
    body = b"{}"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def not_comfyui() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NotComfyUI) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_external_server_is_used_and_left_alone(options: ComfyUIOptions) -> None:
    with ComfyUIProcess(options) as owner:
        engine: Engine = ExternalComfyUI(owner.url + "/")
        with engine:
            engine.start()
            engine.wait_ready()
            engine.ensure_ready()
            assert engine.alive
            with pytest.raises(EngineUnavailable, match="COMFYUI_URL"):
                engine.restart()
        assert owner.alive
        owner.stop()
        assert not engine.alive


def test_an_external_server_that_is_none(not_comfyui: str) -> None:
    with pytest.raises(EngineUnavailable, match="not ComfyUI"):
        ExternalComfyUI(not_comfyui).wait_ready()


def test_an_external_server_that_never_answers() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(EngineUnavailable):
            ExternalComfyUI(url, start_timeout_s=0.2).wait_ready()
        assert not ExternalComfyUI(url).alive


def test_no_orphan_when_the_worker_is_killed(options: ComfyUIOptions) -> None:
    code = (
        "import pickle, sys, time\n"
        "from worker.comfyui.process import ComfyUIProcess\n"
        "engine = ComfyUIProcess(pickle.load(sys.stdin.buffer))\n"
        "engine.start(); engine.wait_ready(); print(engine.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=options.directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(pickle.dumps(options))
        worker.stdin.close()
        pid = int(worker.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        worker.kill()
    end = time.monotonic() + 5
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)
