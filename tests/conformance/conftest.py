"""One server of each kind for the whole suite; without COMFYUI_DIR only the stand-in."""

from collections.abc import Iterator

import pytest

from tests.conformance.servers import REAL_FOLDER, Server, running

_NO_REAL = pytest.mark.skipif(not REAL_FOLDER, reason="COMFYUI_DIR names no real ComfyUI")


@pytest.fixture(
    scope="session", params=["stand-in", pytest.param("real", marks=_NO_REAL)], name="server"
)
def _server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(scope="session", name="stand_in")
def _stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("stand-in", tmp_path_factory.mktemp("faulty")) as server:
        yield server


@pytest.fixture(name="slow")
def _slow(server: Server) -> Iterator[Server]:
    """Steps take long enough for a test to find the sampler at work."""
    if server.real:
        yield server
        return
    server.faults(step_latency_s=0.05)
    yield server
    server.faults(step_latency_s=0)
