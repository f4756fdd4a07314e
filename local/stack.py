"""The local stack: what a worker needs around it on a machine without GPU, bucket or ComfyUI.

A real S3 server, the ComfyUI stand-in (or, with `COMFYUI_DIR`, the real ComfyUI) and a registered
`demo` character. The worker itself is the real one; only its environment is made here.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from local.lora_file import write_demo_lora
from local.s3 import S3Server

ROOT: Final = Path(__file__).resolve().parent.parent
STAND_IN: Final = ROOT / "local" / "comfyui"
TRAINER_STAND_IN: Final = ROOT / "local" / "kohya"
TOKENIZERS: Final = (
    "openai_clip-vit-large-patch14",
    "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k",
)
CHECKPOINTS: Final = ("sd_xl_base_1.0.safetensors", "svd_xt.safetensors")
DEMO: Final = "demo"
_REGISTER_TIMEOUT_S: Final = 120
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "LD_LIBRARY_PATH")


class Stack:
    """Storage, models and settings for workers on this machine; everything goes when it closes.

    Args:
        comfyui_dir: a real ComfyUI; None takes the stand-in.
        comfyui_python: the real ComfyUI's interpreter.
        comfyui_args: more arguments for it, e.g. `--cpu`.
    """

    def __init__(
        self,
        *,
        comfyui_dir: Path | None = None,
        comfyui_python: str | None = None,
        comfyui_args: str = "",
    ) -> None:
        self._comfyui_dir = comfyui_dir
        self._comfyui_python = comfyui_python
        self._comfyui_args = comfyui_args
        self._held = ExitStack()

    @classmethod
    def from_environment(cls) -> Self:
        """`COMFYUI_DIR`, `COMFYUI_PYTHON` and `COMFYUI_ARGS` choose a real ComfyUI."""
        folder = os.environ.get("COMFYUI_DIR")
        return cls(
            comfyui_dir=Path(folder).resolve() if folder else None,
            comfyui_python=os.environ.get("COMFYUI_PYTHON"),
            comfyui_args=os.environ.get("COMFYUI_ARGS", ""),
        )

    @property
    def engine(self) -> str:
        """What stands behind the workers, for people."""
        if self._comfyui_dir is None:
            return "the ComfyUI stand-in (its pictures are not real)"
        return f"ComfyUI at {self._comfyui_dir}"

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            scratch = tempfile.TemporaryDirectory(prefix="local-stack-", ignore_cleanup_errors=True)
            self.folder = Path(opening.enter_context(scratch))
            self.s3 = opening.enter_context(S3Server())
            self._make_models()
            self._held = opening.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of one worker: nothing of this machine's but the bare necessities.

        Two workers must not share a `WORK_DIR`; give each one in `changes`.
        """
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        settings = {
            "S3_ENDPOINT_URL": self.s3.endpoint_url,
            "S3_BUCKET": self.s3.bucket,
            "S3_REGION": self.s3.region,
            "S3_ACCESS_KEY_ID": self.s3.access_key_id,
            "S3_SECRET_ACCESS_KEY": self.s3.secret_access_key,
            "S3_ADDRESSING_STYLE": "path",
            "WORK_DIR": str(self.folder / "work"),
            "MODELS_DIR": str(self.folder / "models"),
            "COMFYUI_DIR": str(self._comfyui_dir or STAND_IN),
            "COMFYUI_PYTHON": self._comfyui_python or ("" if self._comfyui_dir else sys.executable),
            "COMFYUI_ARGS": self._comfyui_args,
            "KOHYA_DIR": str(TRAINER_STAND_IN),
            "KOHYA_TOKENIZERS": str(self.folder / "tokenizers"),
            "PYTHONUNBUFFERED": "1",
        }
        return {**kept, **{name: text for name, text in settings.items() if text}, **changes}

    def register_demo(self) -> None:
        """Register `demo` with a real LoRA file, through the registry's own command line."""
        weights = self.folder / "demo.safetensors"
        write_demo_lora(weights)
        words = f"register {DEMO} --file {weights} --name Demo --trigger ohwx --class-noun person"
        subprocess.run(
            [sys.executable, "-m", "worker.registry_cli", *words.split()],
            cwd=ROOT,
            env=self.environment(),
            check=True,
            timeout=_REGISTER_TIMEOUT_S,
            stdout=subprocess.DEVNULL,
        )

    def _make_models(self) -> None:
        """Empty files under the models' names: the stand-in only looks whether they are there."""
        folder = self.folder / "models" / "checkpoints"
        folder.mkdir(parents=True)
        for name in CHECKPOINTS if self._comfyui_dir is None else ():
            (folder / name).touch()
        for name in TOKENIZERS:
            (self.folder / "tokenizers" / name).mkdir(parents=True)
