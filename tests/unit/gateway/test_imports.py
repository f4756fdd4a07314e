"""What the gateway's image must hold: it has no GPU, no SDK and no picture libraries to load."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OURS = {path.parent.name for path in ROOT.glob("*/__init__.py")}


def loaded(module: str) -> set[str]:
    words = f"import sys, {module}; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_gateway_takes_of_the_worker_what_needs_no_engine() -> None:
    modules = loaded("gateway.app")
    worker = {name.split(".")[1] for name in modules if name.startswith("worker.")}
    assert worker <= {
        *(
            "cancel",
            "contract",
            "contract_fields",
            "errors",
            "refusals",
            "storage",
            "storage_settings",
            "sources",
        ),
    }
    tops = {name.partition(".")[0] for name in modules}
    assert tops & OURS <= {"gateway", "worker", "lora_registry", "workflows", "families"}
    assert not tops & {"runpod", "torch", "PIL", "av", "onnxruntime"}


def test_the_client_needs_nothing_of_ours() -> None:
    tops = {name.partition(".")[0] for name in loaded("characters.client, characters.screen")}
    assert tops & OURS == {"characters"}
