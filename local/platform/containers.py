"""What a container's end does on the platform: every process in it ends with its first one.

Here there is no container, so the processes of a pod are found by a mark in their environment,
which children inherit. `/proc` is Linux; elsewhere nothing is found, and nothing is ended.
"""

import os
import signal
from pathlib import Path
from typing import Final

MARK: Final = "LOCAL_PLATFORM_CONTAINER"


def processes(mark: str, proc: Path = Path("/proc")) -> list[int]:
    """The ids of living processes whose environment carries `mark`, this process excepted."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in proc.glob("[0-9]*"):
        try:
            marked = wanted in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        if marked and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def end(mark: str) -> list[str]:
    """Kill what is left of a container; answers the command lines, for the account of leftovers."""
    names = []
    for pid in processes(mark):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
        if command:  # a zombie has none
            names.append(command.replace(b"\0", b" ").decode(errors="replace").strip())
    return names
