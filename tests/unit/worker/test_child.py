import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from worker.child import TAIL_BYTES, ChildNotStopped, ChildProcess, ChildStartFailed
from worker.logs import LineSplitter


def python(code: str, *arguments: str, **options: object) -> ChildProcess:
    return ChildProcess([sys.executable, "-u", "-c", code, *arguments], name="child", **options)  # type: ignore[arg-type]


def gone(pid: int, timeout_s: float = 5.0) -> bool:
    """Whether the process ends in time; one that nobody reaps (a zombie) has ended."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def said(child: ChildProcess, what: str, timeout_s: float = 10.0) -> str:
    """The output, once a whole line of it contains `what`; a chunk may end within a word."""
    end = time.monotonic() + timeout_s
    while what not in child.tail().rpartition("\n")[0]:
        assert time.monotonic() < end, f"never said {what!r}: {child.tail()!r}"
        time.sleep(0.005)
    return child.tail()


def test_exit_status_and_output_are_complete_when_wait_returns() -> None:
    with python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)") as child:
        assert child.wait(10) == 3
        assert child.returncode == 3
        assert not child.alive
        assert child.tail() == "out\nerr\n"


def test_wait_says_none_while_it_runs() -> None:
    with python("import time; time.sleep(60)") as child:
        assert child.wait(0.05) is None
        assert child.alive
        assert child.returncode is None
    assert child.returncode == -signal.SIGTERM


def test_standard_input_is_empty() -> None:
    with python("import sys; print(repr(sys.stdin.read()))") as child:
        assert child.wait(10) == 0
        assert child.tail() == "''\n"


def test_a_lot_of_output_is_drained_and_only_its_end_kept() -> None:
    sizes: list[int] = []
    code = "import sys; sys.stdout.write('x' * 3_000_000 + 'END')"
    with python(code, on_output=lambda chunk: sizes.append(len(chunk))) as child:
        assert child.wait(20) == 0
    assert sum(sizes) == 3_000_003
    assert len(child.tail()) == TAIL_BYTES
    assert child.tail().endswith("xEND")


def test_a_failing_callback_neither_stops_the_draining_nor_goes_unseen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(chunk: bytes) -> None:
        raise ValueError(len(chunk))

    with python("print('x' * 1_000_000); print('END')", on_output=fail) as child:
        assert child.wait(20) == 0
    assert child.tail().endswith("END\n")
    assert "output callback failed" in caplog.text


@pytest.mark.parametrize(
    ("argv", "reason"),
    [(["/no/such/program"], "No such file or directory"), (["/etc/passwd"], "Permission denied")],
)
def test_a_program_that_cannot_run_is_an_error_with_facts(argv: list[str], reason: str) -> None:
    child = ChildProcess(argv, name="trainer")
    with pytest.raises(ChildStartFailed) as caught:
        child.start()
    assert caught.value.details == {"child": "trainer", "reason": reason}
    assert argv[0] not in str(caught.value)
    assert not child.alive
    child.stop()


def test_it_starts_once() -> None:
    with python("") as child, pytest.raises(RuntimeError):
        child.start()


def test_stop_ends_a_polite_child_with_sigterm_and_is_idempotent() -> None:
    with python("import time; print('up'); time.sleep(60)") as child:
        said(child, "up")
        child.stop()
        assert child.returncode == -signal.SIGTERM
        child.stop()
    child.kill()


def test_stop_kills_a_child_that_ignores_sigterm() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf'); time.sleep(60)"
    )
    with python(code, stop_timeout_s=0.2) as child:
        said(child, "deaf")
        child.stop()
        assert child.returncode == -signal.SIGKILL


def test_stop_from_many_threads_at_once() -> None:
    with python("import time; print('up'); time.sleep(60)") as child:
        said(child, "up")
        threads = [threading.Thread(target=child.stop) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert child.returncode == -signal.SIGTERM


FAMILY = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
'''], stdout=subprocess.PIPE)
child.stdout.readline()
print("grandchild", child.pid, flush=True)
if sys.argv[1] == "stay":
    time.sleep(60)
"""


@pytest.mark.parametrize("leader", ["stay", "leave"])
def test_grandchildren_end_with_the_group(leader: str) -> None:
    with python(FAMILY, leader, stop_timeout_s=5) as child:
        grandchild = int(said(child, "grandchild").split()[1])
        if leader == "stay":
            child.stop()
        else:
            assert child.wait(10) == 0
        assert gone(grandchild)


def test_a_daemon_that_keeps_the_pipe_delays_the_end_only_a_moment() -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print('daemon', p.pid)"
    )
    with python(code) as child:
        assert child.wait(10) == 0
        os.kill(int(said(child, "daemon").split()[1]), signal.SIGKILL)


PARENT = """
import sys, threading, time
from worker.child import ChildProcess

child = ChildProcess([sys.executable, "-u", "-c", sys.argv[1], "stay"], name="child")
# Started by a thread that ends: the child must live on, and still die with the process.
thread = threading.Thread(target=child.start)
thread.start()
thread.join()
while "grandchild" not in child.tail():
    time.sleep(0.01)
print(child.pid, child.tail().split()[1], child.alive, flush=True)
time.sleep(60)
"""


def test_no_orphan_when_the_worker_is_killed() -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, FAMILY], stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        child, grandchild, alive = parent.stdout.readline().split()
        assert alive == "True"
        parent.kill()
    assert gone(int(child))
    assert gone(int(grandchild))


def test_no_file_and_no_thread_is_left() -> None:
    def residue() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208 - names

    before = residue()
    for _ in range(5):
        with python("print('x')") as child:
            child.wait(10)
    end = time.monotonic() + 5
    while residue() != before and time.monotonic() < end:
        time.sleep(0.01)
    assert residue() == before


def test_a_process_that_survives_its_killing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.child._KILL_TIMEOUT_S", 0.05)
    with python("import time; print('up'); time.sleep(60)") as child:
        said(child, "up")
        with monkeypatch.context() as patch:
            patch.setattr("worker.child.os.killpg", lambda *_: None)  # as one stuck in a driver
            with pytest.raises(ChildNotStopped):
                child.kill()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_do_not_depend_on_how_the_chunks_fall(size: int) -> None:
    text = "one\r\ntwo\n\nsteps: 1%\rsteps: 2%\rthree — ü\nrest".encode()
    splitter = LineSplitter()
    lines: list[str] = []
    for start in range(0, len(text), size):
        lines += splitter.feed(text[start : start + size])
    lines += splitter.flush()
    assert lines == ["one", "two", "steps: 1%", "steps: 2%", "three — ü", "rest"]
    assert splitter.flush() == []


def test_a_line_without_end_comes_in_bounded_pieces() -> None:
    splitter = LineSplitter(max_bytes=4)
    assert splitter.feed(b"aaaabbbbcc") == ["aaaa", "bbbb"]
    assert splitter.feed(b"cc\n") == ["cccc"]
    assert splitter.feed(b"ddddeeeeff\n") == ["dddd", "eeee", "ff"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert LineSplitter().feed(b"\xff\xfe!\n") == ["��!"]


def test_a_child_reads_what_is_written_to_it_and_sees_the_end() -> None:
    echo = "import sys; [print('said', line.strip(), flush=True) for line in sys.stdin]"
    with python(echo, stdin=True) as child:
        child.write(b"one\n")
        said(child, "said one")
        child.write(b"two\n")
        said(child, "said two")
        child.stop()
        with pytest.raises(BrokenPipeError):
            child.write(b"three\n")


def test_a_child_without_a_pipe_has_nothing_to_read() -> None:
    with python("import sys; print(repr(sys.stdin.read()))") as child:
        assert child.wait(10) == 0
        assert child.tail() == "''\n"
        with pytest.raises(RuntimeError, match="no pipe"):
            child.write(b"one")
