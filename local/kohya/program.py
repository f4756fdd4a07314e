"""The stand-in's course: parse, check, count steps on a real tqdm bar, leave real files."""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types

from local.kohya import files
from local.kohya.dataset import Dataset, read_dataset
from local.kohya.faults import Fault, strike, take_fault
from local.kohya.parser import parser

STEP_SECONDS: Final = "KOHYA_STEP_S"
_DEFAULT_STEP_S: Final = "0.002"
_TOKENIZERS: Final = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")


def main(argv: list[str]) -> None:
    """Run once; exits as sd-scripts does, which proves as little."""
    args = parser().parse_args(argv)
    sys.stderr.write("INFO sd-scripts stand-in: this trains nothing and writes random weights\n")
    fault = take_fault(dict(os.environ))
    _check(args)
    dataset = read_dataset(Path(args.dataset_config))
    if dataset.photos == 0:
        sys.stderr.write("ERROR No data found. Please verify arguments (train_data_dir)\n")
        sys.exit(0)
    if fault.name == "silent":
        sys.exit(0)
    _Training(args, dataset, fault).run()


def _check(args: argparse.Namespace) -> None:
    if not Path(args.pretrained_model_name_or_path).is_file():
        sys.exit(f"FileNotFoundError: no file {args.pretrained_model_name_or_path}")
    if args.cache_text_encoder_outputs and not args.network_train_unet_only:
        sys.exit("AssertionError: network for Text Encoder cannot be trained with caching outputs")
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        sys.exit("OSError: the stand-in never goes to the network; set HF_HUB_OFFLINE=1")
    for name in _TOKENIZERS:
        if not (Path(args.tokenizer_cache_dir or "") / name).is_dir():
            sys.exit(f"OSError: Can't load tokenizer for '{name}'")


@dataclass(frozen=True)
class _Training:
    args: argparse.Namespace
    dataset: Dataset
    fault: Fault

    def run(self) -> None:
        """Count the steps as sd-scripts v0.10.1 does, its wrong counter after a resume included."""
        base = self._initial_step()
        skipped = base // self.dataset.batches * self.dataset.batches
        counter = base - skipped
        total = self.args.max_train_steps
        sys.stderr.write(f"INFO num batches per epoch: {self.dataset.batches}\n")
        pause = float(os.environ.get(STEP_SECONDS, _DEFAULT_STEP_S))
        with tqdm(total=total - counter, smoothing=0, desc="steps") as bar:
            for step in range(base + 1, total + 1):
                time.sleep(pause)
                counter += 1
                self._step(bar, step, counter)
        self._finish()

    def _step(self, bar: tqdm, step: int, counter: int) -> None:
        name = self.fault.at(step)
        if name is not None:
            strike(name)
        bar.update(1)
        loss = math.nan if name == "nan" else 0.09 + 0.06 * math.exp(-step / 400)
        if counter % self.args.save_every_n_steps == 0:
            self._save(counter)
        bar.set_postfix(avr_loss=loss)

    def _save(self, counter: int) -> None:
        every = self.args.save_every_n_steps
        self._write(self._path(f"-step{counter:08d}.safetensors"), counter)
        if self.args.save_last_n_steps is not None:  # sd-scripts' own arithmetic
            gone = (counter - self.args.save_last_n_steps - 1) // every * every
            files.remove(self._path(f"-step{gone:08d}.safetensors"))
        previous = counter - every
        if self.args.save_state:
            files.write_state(self._path(f"-step{counter:08d}-state"), step=counter)
            files.remove(self._path(f"-step{previous:08d}-state"))

    def _finish(self) -> None:
        path = self._path(".safetensors")
        if self.args.save_state:
            files.write_state(self._path("-state"), step=self.args.max_train_steps)
        self._write(path, self.args.max_train_steps)
        sys.stderr.write(f"INFO saving checkpoint: {path}\nINFO model saved.\n")

    def _write(self, path: Path, step: int) -> None:
        learned = {"nan_file": math.nan, "empty_lora": 0.0}.get(self.fault.name, 0.01)
        files.write_lora(
            path,
            rank=self.args.network_dim,
            alpha=self.args.network_alpha,
            seed=(self.args.seed or 0) + step,
            learned=learned,
        )

    def _initial_step(self) -> int:
        if self.args.resume is None:
            return 0
        state = json.loads((Path(self.args.resume) / "train_state.json").read_text())
        given = self.args.initial_step
        return int(given if given is not None else state["current_step"])

    def _path(self, suffix: str) -> Path:
        return Path(self.args.output_dir) / f"{self.args.output_name}{suffix}"
