"""Scales go into the module before where that changes nothing, and only there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressbench.methods.absorbing import absorb
from compressbench.models.blocks import Block, walk
from compressbench.models.parts import matrix, target_linears
from compressbench.testing import tiny_causal_lm, tiny_classifier

BATCH = {"input_ids": torch.arange(4, 19)[None], "attention_mask": torch.ones(1, 15, dtype=torch.long)}


def first_block(model: nn.Module) -> Block:
    return next(walk(model, [BATCH], list(target_linears(model))))


def scales_for(block: Block, group: list[str]) -> torch.Tensor:
    inputs = matrix(block.model.get_submodule(group[0])).shape[1]
    return (torch.rand(inputs, generator=torch.Generator().manual_seed(0)) * 4 + 0.25).to(torch.float64)


@pytest.mark.parametrize(
    ("make", "absorbers"),
    [
        # Llama: both norms feed their group alone; v_proj has fewer outputs than o_proj has inputs; up_proj feeds down_proj
        (tiny_causal_lm, ["input_layernorm", None, "post_attention_layernorm", "mlp.up_proj"]),
        # BERT: norms feed the residual as well; value feeds the attention's output; GELU stands between the rest
        (tiny_classifier, [None, "attention.self.value", None, None]),
    ],
    ids=["llama", "bert"],
)
def test_who_can_take_scales_is_found_by_experiment(make: object, absorbers: list[str | None]) -> None:
    model = make().model.double()  # type: ignore[operator]
    block = first_block(model)
    before = next(block.outputs())
    found = []
    for group in block.groups():
        scales = scales_for(block, group)
        name = absorb(block, group, scales)
        found.append(name and name.removeprefix(f"{block.name}."))
        if name is None:  # the group still has to divide its input
            for each in group:
                matrix(model.get_submodule(each)).div_(scales)
    assert found == absorbers
    after = next(block.outputs())
    assert float((after - before).abs().max() / before.abs().max()) < 1e-12


def test_a_norm_that_nobody_may_take_is_left_as_it_was() -> None:
    model = tiny_classifier().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "LayerNorm" in name}
    block = first_block(model)
    group = block.groups()[0]
    absorb(block, group, scales_for(block, group).float())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_norm_that_multiplies_by_one_plus_its_weight_is_not_taken() -> None:
    from transformers import GemmaConfig, GemmaForCausalLM

    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=19, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=32,
    )  # fmt: skip
    model = GemmaForCausalLM(config).eval()
    block = first_block(model)
    group = block.groups()[0]
    assert absorb(block, group, scales_for(block, group).float()) is None
