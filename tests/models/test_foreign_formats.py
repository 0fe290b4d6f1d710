"""Checkpoints of other tools are read as they were meant: packed here by hand, code after code, as one big integer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.models.foreign_formats import parse_checkpoint, read_checkpoint, unpack_words

GPTQ_V2 = {"quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": 4, "group_size": 32}
INPUTS, OUTPUTS = 96, 64


def words_of(codes: Sequence[int], bits: int) -> list[int]:
    """Signed 32-bit words of the integer that has code i at bit i * bits."""
    number = sum(code << at * bits for at, code in enumerate(codes))
    words = [number >> 32 * at & 0xFFFFFFFF for at in range(-(-len(codes) * bits // 32))]
    return [word - (1 << 32) if word >= 1 << 31 else word for word in words]


def pack_rows(codes: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.tensor([words_of(row, bits) for row in codes.tolist()], dtype=torch.int32)


def random_codes(rows: int, columns: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 8), st.integers(1, 3), st.integers(1, 70), st.integers(0, 2**16))
def test_codes_come_back_from_a_gapless_stream_of_bits(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = random_codes(rows, columns, bits, seed)
    assert unpack_words(pack_rows(codes, bits), bits, columns).tolist() == codes.tolist()


def test_an_eleventh_code_of_three_bits_runs_on_into_the_next_word() -> None:
    """GPTQ's 3-bit words: 10 codes, two bits of the eleventh; its third bit, ten codes, one bit of the next; ..."""
    codes = [0] * 32
    codes[10], codes[21] = 0b110, 0b011
    first, second, third = words_of(codes, 3)
    assert (first & 0xFFFFFFFF, second & 0xFFFFFFFF, third) == (0b10 << 30, 1 | 1 << 31, 0b01)
    words = torch.tensor([[first, second, third]], dtype=torch.int32)
    assert unpack_words(words, 3, 32)[0].tolist() == codes


def test_too_few_words_are_an_error() -> None:
    with pytest.raises(CellError, match="3 words of 32 bits can't hold 25 codes of 4 bits"):
        unpack_words(torch.zeros(2, 3, dtype=torch.int32), 4, 25)


def gptq_tensors(
    bits: int, groups: torch.Tensor, *, stored_less_one: bool = False, zeros: torch.Tensor | None = None
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A module in GPTQ's layout, and the matrix that it means, weight by weight. `groups` is g_idx."""
    generator = torch.Generator().manual_seed(bits)
    num_groups = int(groups.max()) + 1
    codes = random_codes(OUTPUTS, INPUTS, bits)
    if zeros is None:
        zeros = torch.randint(1, 2**bits, (num_groups, OUTPUTS), generator=generator)
    scales = torch.rand(num_groups, OUTPUTS, generator=generator).half()
    weight = torch.empty(OUTPUTS, INPUTS)
    for row in range(OUTPUTS):
        for column in range(INPUTS):
            group = int(groups[column])
            weight[row, column] = (codes[row, column] - zeros[group, row]) * scales[group, row].float()
    tensors = {
        "m.qweight": pack_rows(codes, bits).t().contiguous(),
        "m.qzeros": pack_rows(zeros - 1 if stored_less_one else zeros, bits),
        "m.scales": scales,
        "m.g_idx": groups.to(torch.int32),
    }
    return tensors, weight


REGULAR = torch.arange(INPUTS) // 32
IN_ANOTHER_ORDER = REGULAR[torch.randperm(INPUTS, generator=torch.Generator().manual_seed(5))]
ONE_GROUP = torch.zeros(INPUTS, dtype=torch.long)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("groups", [REGULAR, IN_ANOTHER_ORDER, ONE_GROUP], ids=["groups", "act-order", "per row"])
@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
def test_gptq_checkpoints_mean_what_they_say(bits: int, groups: torch.Tensor, layout: str) -> None:
    tensors, weight = gptq_tensors(bits, groups, stored_less_one=layout == "gptq")
    found = parse_checkpoint({**GPTQ_V2, "checkpoint_format": layout, "bits": bits}, tensors)
    quantized = found.quantized["m"]
    assert torch.equal(quantized.dequantize(), weight)
    assert quantized.bits == bits
    assert quantized.scale.dtype == torch.float16
    assert quantized.group_size == (-1 if groups is ONE_GROUP else 32)
    assert (quantized.group_of is not None) == (groups is IN_ANOTHER_ORDER), "a table only where one is needed"
    assert found.dense == {}


def test_the_first_layout_is_the_default_and_auto_rounds() -> None:
    tensors, weight = gptq_tensors(4, REGULAR, stored_less_one=True)
    for config in ({"quant_method": "gptq"}, {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}):
        found = parse_checkpoint({**config, "group_size": 32}, tensors)
        assert torch.equal(found.quantized["m"].dequantize(), weight)


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
def test_symmetric_zero_points_are_not_stored_twice(layout: str) -> None:
    eights = torch.full((3, OUTPUTS), 8)
    tensors, weight = gptq_tensors(4, REGULAR, stored_less_one=layout == "gptq", zeros=eights)
    quantized = parse_checkpoint({**GPTQ_V2, "checkpoint_format": layout}, tensors).quantized["m"]
    assert quantized.zero is None
    assert torch.equal(quantized.dequantize(), weight)


def test_a_zero_point_of_zero_is_read_from_the_second_layout_and_refused_in_the_first() -> None:
    zeros = torch.full((3, OUTPUTS), 5)
    zeros[1, 7] = 0
    tensors, weight = gptq_tensors(4, REGULAR, zeros=zeros)
    assert torch.equal(parse_checkpoint(GPTQ_V2, tensors).quantized["m"].dequantize(), weight)
    # as GPTQModel writes the first layout: one less in every field at once, with borrows between them
    borrowed = (tensors["m.qzeros"].long() - 0x11111111) & 0xFFFFFFFF
    signed = torch.where(borrowed >= 1 << 31, borrowed - (1 << 32), borrowed).to(torch.int32)
    with pytest.raises(UnsupportedError, match="a zero point of 0 in m can't be read"):
        parse_checkpoint({**GPTQ_V2, "checkpoint_format": "gptq"}, {**tensors, "m.qzeros": signed})


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "awq"},
        {"quant_method": "gptq", "checkpoint_format": "marlin"},
        {"quant_method": "gptq", "format": "gptq_p"},
        {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"},
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
    ],
)
def test_other_formats_are_refused(config: dict[str, Any]) -> None:
    tensors, _ = gptq_tensors(4, REGULAR)
    with pytest.raises(UnsupportedError, match="not read"):
        parse_checkpoint(config, tensors)


def test_parts_that_are_missing_or_of_an_odd_width_are_errors() -> None:
    tensors, _ = gptq_tensors(4, REGULAR)
    without = {name: each for name, each in tensors.items() if name != "m.g_idx"}
    with pytest.raises(CellError, match="lacks g_idx of m"):
        parse_checkpoint(GPTQ_V2, without)
    with pytest.raises(UnsupportedError, match="13 words for 96 inputs"):
        parse_checkpoint(GPTQ_V2, {**tensors, "m.qweight": torch.zeros(13, OUTPUTS, dtype=torch.int32)})
    with pytest.raises(CellError, match="can't hold 64 codes"):
        parse_checkpoint(GPTQ_V2, {**tensors, "m.qzeros": tensors["m.qzeros"][:, :-1]})


def compressed(**weights: Any) -> dict[str, Any]:
    scheme = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, **weights}
    layout = "int-quantized" if scheme["num_bits"] == 8 and scheme["strategy"] == "channel" else "pack-quantized"
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": {"weights": scheme}}}


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("columns", [96, 90])
@pytest.mark.parametrize("is_sym", [True, False])
def test_pack_quantized_weights_mean_what_they_say(bits: int, columns: int, is_sym: bool) -> None:
    """Signed values, moved up by half the range; zero points are packed along the outputs."""
    half, rows, num_groups = 2 ** (bits - 1), 40, 3
    values = random_codes(rows, columns, bits) - half
    zeros = random_codes(rows, num_groups, bits, seed=1) - half
    scale = torch.rand(rows, num_groups, generator=torch.Generator().manual_seed(2))
    tensors = {
        "m.weight_packed": pack_rows(values + half, bits),
        "m.weight_scale": scale,
        "m.weight_shape": torch.tensor([rows, columns]),
    }
    if not is_sym:
        tensors["m.weight_zero_point"] = pack_rows((zeros + half).t(), bits).t().contiguous()
    expected = torch.empty(rows, columns)
    for column in range(columns):
        group = column // 32
        zero = 0 if is_sym else zeros[:, group]
        expected[:, column] = (values[:, column] - zero).float() * scale[:, group]
    found = parse_checkpoint(compressed(num_bits=bits), {**tensors, "norm.weight": torch.ones(3)})
    assert torch.equal(found.quantized["m"].dequantize(), expected)
    assert (found.quantized["m"].zero is None) == is_sym
    assert set(found.dense) == {"norm.weight"}


@pytest.mark.parametrize("is_sym", [True, False])
def test_int_quantized_weights_mean_what_they_say(is_sym: bool) -> None:
    weight = (random_codes(7, 10, 8) - 128).to(torch.int8)
    scale = torch.rand(7, 1, generator=torch.Generator().manual_seed(0))
    tensors = {"m.weight": weight, "m.weight_scale": scale}
    zero = torch.arange(-3, 4, dtype=torch.int8)[:, None]
    if not is_sym:
        tensors["m.weight_zero_point"] = zero
    quantized = parse_checkpoint(compressed(num_bits=8, strategy="channel"), tensors).quantized["m"]
    expected = (weight.float() - (0 if is_sym else zero.float())) * scale
    assert torch.equal(quantized.dequantize(), expected)
    assert (quantized.bits, quantized.group_size) == (8, -1)


def test_columns_of_a_group_may_be_anywhere() -> None:
    codes, scale = random_codes(4, 96, 4), torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    tensors = {
        "m.weight_packed": pack_rows(codes, 4),
        "m.weight_scale": scale,
        "m.weight_shape": torch.tensor([4, 96]),
        "m.weight_g_idx": IN_ANOTHER_ORDER.to(torch.int32),
    }
    quantized = parse_checkpoint(compressed(), tensors).quantized["m"]
    assert torch.equal(quantized.dequantize(), (codes - 8).float() * scale[:, IN_ANOTHER_ORDER])


@pytest.mark.parametrize("weights", [{"type": "float"}, {"strategy": "tensor"}, {"strategy": "block"}])
def test_other_schemes_of_compressed_tensors_are_refused(weights: dict[str, str]) -> None:
    with pytest.raises(UnsupportedError, match="are not read"):
        parse_checkpoint(compressed(**weights), {})


def test_modules_quantized_in_two_ways_are_refused() -> None:
    config = compressed()
    config["config_groups"]["group_1"] = {"weights": {**config["config_groups"]["group_0"]["weights"], "num_bits": 8}}
    with pytest.raises(UnsupportedError, match="are not read"):
        parse_checkpoint(config, {})


def test_a_folder_of_several_files_is_one_checkpoint(tmp_path: Path) -> None:
    tensors, weight = gptq_tensors(4, REGULAR)
    save_file({"m.qweight": tensors.pop("m.qweight"), "norm.weight": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file(tensors, tmp_path / "model-2.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": GPTQ_V2}))
    found = read_checkpoint(tmp_path)
    assert torch.equal(found.quantized["m"].dequantize(), weight)
    assert set(found.dense) == {"norm.weight"}


def test_a_folder_without_quantization_is_dense(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    found = read_checkpoint(tmp_path)
    assert (set(found.quantized), set(found.dense)) == (set(), {"a.weight"})


def test_folders_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CellError, match="can't be read"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CellError, match="can't be read"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CellError, match="no safetensors file"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(CellError, match="can't be read"):
        read_checkpoint(tmp_path)
