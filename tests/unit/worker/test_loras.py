"""What a file is: real safetensors files, whole and damaged."""

import contextlib
import json
import struct
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from errors import CodedError
from local.lora_file import sdxl_modules, write_demo_lora
from lora_registry.errors import LoraCorrupt
from lora_registry.tensorfile import MAX_HEADER_BYTES, check_finite, read_header, sha256_of
from tests.loras import inspect, write_lora


def saved(path: Path, tensors: Any, metadata: Mapping[str, str] | None = None) -> Path:
    file = path / "lora.safetensors"
    save_file(tensors, file, metadata=dict(metadata) if metadata else None)
    return file


def raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file = path / "raw.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


def tensor(shape: list[int], start: int, end: int, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


# The demo file, which is as large and has the names of a real one


def test_the_demo_lora_has_every_module_of_an_sdxl_unet(tmp_path: Path) -> None:
    write_demo_lora(tmp_path / "demo", rank=2)
    facts = inspect(tmp_path / "demo")
    assert (facts.modules, facts.ignored) == (722, 0)
    assert (facts.format, facts.rank, facts.alpha, facts.base_model) == ("kohya", 2, 1.0, "sdxl")
    assert not facts.text_encoder
    check_finite(tmp_path / "demo", read_header(tmp_path / "demo"))


def test_the_demo_lora_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo_lora(tmp_path / name, rank=1, seed=seed)
    a, b, c = (sha256_of(tmp_path / name) for name in "abc")
    assert a == b != c


def test_the_safetensors_library_reads_the_demo_lora(tmp_path: Path) -> None:
    write_demo_lora(tmp_path / "demo", rank=1)
    tensors = load_file(tmp_path / "demo")
    assert len(tensors) == 2166
    assert tensors["lora_unet_middle_block_1_proj_in.lora_down.weight"].shape == (1, 1280)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_its_cross_attention_reads_2048_wide_text() -> None:
    modules = {name: inputs for name, inputs, _ in sdxl_modules()}
    widths = {inputs for name, inputs in modules.items() if name.endswith("attn2_to_k")}
    assert widths == {2048}


# Damaged files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header's length"),
        (b"PK\x03\x04 a zip of something", "a zip archive"),
        (struct.pack("<Q", 100) + b"{}", "header's length"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" * 64, "header's length"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "not an object"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "not JSON"),
    ],
)
def test_what_is_not_safetensors_is_corrupt(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(LoraCorrupt, match=message) as caught:
        inspect(tmp_path / "file")
    assert caught.value.code == "lora_corrupt"


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": tensor([2], 0, 4)}, b"123", "not copied whole"),
        ({"a": tensor([2], 0, 4)}, b"12345", "not copied whole"),
        ({"a": tensor([2], 0, 4), "b": tensor([2], 2, 6)}, b"123456", "overlap or leave gaps"),
        ({"a": tensor([2], 0, 4), "b": tensor([1], 6, 8)}, b"12345678", "overlap or leave gaps"),
        ({"a": tensor([2], 0, 6)}, b"123456", "size that is not its shape's"),
        ({"a": tensor([2], -4, 0)}, b"", "size that is not its shape's"),
        ({"a": tensor([-2], 0, 4)}, b"1234", "impossible shape"),
        ({"a": tensor([True], 0, 2)}, b"12", "impossible shape"),
        ({"a": tensor([1], 0, 2, "F12")}, b"12", "unknown type"),
        ({"a": {"dtype": "F16"}}, b"", "entry for tensor 'a'"),
        ({"a": [1, 2]}, b"", "entry for tensor 'a'"),
        ({"__metadata__": {"a": 1}}, b"", "metadata"),
        (b'{"a": {}, "a": {}}', b"", "not JSON"),
        # Python's JSON takes this; the parser that ComfyUI loads with does not.
        (b'{"\\ud800": {"dtype":"F16","shape":[2],"data_offsets":[0,4]}}', b"1234", "safetensors"),
    ],
)
def test_a_header_that_lies_is_corrupt(
    tmp_path: Path, header: object, data: bytes, message: str
) -> None:
    with pytest.raises(LoraCorrupt, match=message):
        read_header(raw(tmp_path, header, data))


@pytest.mark.parametrize("digits", [1, 4_000])
def test_an_absurd_shape_is_refused_before_it_is_multiplied(tmp_path: Path, digits: int) -> None:
    sides = b",".join([b"9" * digits] * (3_000_000 // (digits + 1)))
    entry = b'{"a":{"dtype":"F16","shape":[' + sides + b'],"data_offsets":[0,2]}}'
    file = raw(tmp_path, entry, b"\0\0")
    begun = time.process_time()
    with pytest.raises(LoraCorrupt, match="impossible shape"):
        read_header(file)
    assert time.process_time() - begun < 1  # it was 18 s for one such header, in one C call


def test_a_header_of_millions_of_lists_is_refused_before_it_is_built(tmp_path: Path) -> None:
    lists = b",".join([b"[]"] * 3_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(LoraCorrupt, match="too many parts"):
            read_header(raw(tmp_path, b'{"a":[' + lists + b"]}"))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_damage_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(write_lora(tmp_path / "whole", context=64).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 700) - 1))] = data.draw(
            st.integers(0, 255)
        )
    cut = data.draw(st.integers(0, len(content)))
    (tmp_path / "damaged").write_bytes(content[:cut])
    with contextlib.suppress(CodedError):
        inspect(tmp_path / "damaged")


# Values


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found(tmp_path: Path, dtype: Any, bad: float) -> None:
    values = np.zeros(100_000, dtype)
    values[:3] = [np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).smallest_subnormal]
    file = saved(tmp_path, {"fine": values, "other": values})
    check_finite(file, read_header(file))
    values = values.copy()
    values[-1] = bad
    file = saved(tmp_path, {"fine": np.zeros(3, dtype), "bad": values})
    with pytest.raises(LoraCorrupt, match="'bad' has values that are not finite"):
        check_finite(file, read_header(file))


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("BF16", b"\x7f\x7f\x7f\xff", b"\x80\x7f\x00\x00"),
        ("F8_E4M3", b"\x7e\xfe\x00\x01", b"\x00\x00\x7f\x00"),
        ("F8_E5M2", b"\x7b\xfb\x00\x01", b"\x00\x7c\x00\x00"),
    ],
)
def test_types_that_numpy_lacks_are_looked_at_too(
    tmp_path: Path, dtype: str, good: bytes, bad: bytes
) -> None:
    count = 2 if dtype == "BF16" else 4
    header = {"a": tensor([count], 0, 4, dtype)}
    file = raw(tmp_path, header, good)
    check_finite(file, read_header(file))
    file = raw(tmp_path, header, bad)
    with pytest.raises(LoraCorrupt):
        check_finite(file, read_header(file))


def test_whole_numbers_are_always_finite(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": np.full(9, -1, np.int32)})
    check_finite(file, read_header(file))


def test_a_long_look_can_be_ended(tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    file = write_lora(tmp_path / "lora")
    with pytest.raises(Ended):
        check_finite(file, read_header(file), check_cancelled=end)
    with pytest.raises(Ended):
        sha256_of(file, check_cancelled=end)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>" + bytes(600), "a login page, .*token"),
        (b"\n<html><body>Not found</body></html>", "a web page, .*address of the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer"),
        (b"\x80\x02}q\x00X\x05\x00\x00\x00", "a pickle .*save the LoRA as safetensors"),
        (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "a pickle"),
        (b"PK\x03\x04" + bytes(60), "a zip archive, .*unpack it first"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(60), "a 7z archive, .*unpack it first"),
        (b'{"error": "unauthorized"}', "a JSON message of a server"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML message"),
        (b"GGUF" + bytes(60), "a GGUF model"),
        (struct.pack("<Q", 20_000_000) + b"{" + bytes(20_000_000), "20000000 bytes; at most"),
    ],
)
def test_what_came_in_a_loras_place_is_named(tmp_path: Path, body: bytes, sentence: str) -> None:
    path = tmp_path / "lora"
    path.write_bytes(body)
    with pytest.raises(LoraCorrupt, match=sentence):
        inspect(path)


def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    """0x80 0x02: a header of 640 bytes."""
    header = json.dumps({"__metadata__": {"x": "x" * 613}})
    assert len(header) == 640
    path = raw(tmp_path, header.encode())
    with pytest.raises(CodedError) as caught:
        inspect(path)
    assert "pickle" not in str(caught.value)
