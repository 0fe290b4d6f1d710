from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from architectures import FAMILIES, ODD
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from compressbench.core.registry import methods
from compressbench.models.config import read_config
from compressbench.models.handle import ModelHandle
from compressbench.models.low_rank_linear import LowRankLinear
from compressbench.models.op_tally import multiplies
from compressbench.models.semi_structured_linear import SemiStructuredLinear
from compressbench.models.size import stored_layers
from compressbench.models.stored_layer import StoredLayer
from compressbench.models.work import count_work
from compressbench.testing import tiny_causal_lm, tiny_classifier

LABELS, WORDS = 3, 19
IDS = torch.tensor([[2, 4, 6, 8, 10, 12, 14, 3], [2, 5, 6, 9, 10, 13, 14, 3]])
BATCH = {"input_ids": IDS}
ROWS = 2 * 8
NUM_IDS = len(set(IDS.flatten().tolist()))


def flops_by_torch(model: nn.Module, batch: Any) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**batch)
    return int(counter.get_total_flops())


def nbytes(*modules: nn.Module) -> int:
    return sum(parameter.nbytes for module in modules for parameter in module.parameters())


def applied(handle: ModelHandle, *steps: tuple[str, dict[str, Any]]) -> ModelHandle:
    for use, options in steps:
        handle = methods.resolve(use)(**options).apply(handle)
    return handle


def all_pairs(queries: int, keys: int) -> int:
    return queries * keys


def causal_pairs(queries: int, _: int) -> int:
    return queries * (queries + 1) // 2


def bert_flops(config: Any, batch: int, length: int, labels: int) -> int:
    hidden, inner = config.hidden_size, config.intermediate_size
    per_layer = 2 * length * (4 * hidden**2 + 2 * hidden * inner) + 2 * 2 * hidden * all_pairs(length, length)
    return int(batch * (config.num_hidden_layers * per_layer + 2 * hidden * labels))


def test_a_bert_encoder_asks_what_its_formula_says() -> None:
    handle = tiny_classifier()
    config, model = handle.model.config, handle.model
    work = count_work(model, BATCH)
    pooler = 2 * 2 * config.hidden_size**2
    assert work.flops == bert_flops(config, 2, 8, LABELS) + pooler
    assert work.flops_by_dtype == {"float32": work.flops}
    assert work.compute_dtype == "float32"
    embeddings = model.bert.embeddings
    rows = (NUM_IDS + 8 + 1) * config.hidden_size * 4
    assert work.weight_bytes == rows + nbytes(
        embeddings.LayerNorm, model.bert.encoder, model.bert.pooler, model.classifier
    )
    assert (work.decode_weight_bytes, work.kv_bytes, work.decode, work.reason) == (None, None, None, "")


def test_an_encoder_of_the_size_of_minilm_asks_what_its_formula_says() -> None:
    config = transformers.BertConfig(**(read_config("embedded:minilm-banking77") or {}))
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    assert count_work(model, {"input_ids": torch.randint(0, 30_000, (1, 32))}).flops == bert_flops(config, 1, 32, 0)
    # 6 layers of 12 x 384 squared, twice for each of 32 tokens
    assert bert_flops(config, 1, 32, 0) == 6 * (24 * 384**2 * 32 + 4 * 384 * 32**2)


def llama_layer_flops(config: Any, rows: int, pairs: int) -> int:
    """`pairs` are those of one head, over the whole batch."""
    hidden, width = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
    linear = 2 * hidden * (queries + keys) + 3 * hidden * config.intermediate_size
    return int(2 * rows * linear + 2 * 2 * pairs * queries)


@pytest.mark.parametrize("tied", [True, False])
def test_a_llama_with_grouped_queries_asks_what_its_formula_says(tied: bool) -> None:
    model = tiny_causal_lm(tied=tied).model
    config, layers = model.config, model.config.num_hidden_layers
    work = count_work(model, BATCH, output_tokens=9)
    per_position = 2 * layers * config.num_key_value_heads * config.head_dim * 4
    length, head = 8 + 4, 2 * config.hidden_size * WORDS
    # the prompt's pass gives the logits of its last position only
    assert work.flops == layers * llama_layer_flops(config, ROWS, 2 * causal_pairs(8, 8)) + 2 * head
    assert work.decode_flops_by_dtype == {"float32": layers * llama_layer_flops(config, 2, 2 * length) + 2 * head}
    assert work.kv_bytes == per_position * length * 2
    body, head_bytes = nbytes(model.model.layers, model.model.norm), model.lm_head.weight.nbytes
    row = config.hidden_size * 4
    # a tied table is read as a whole by the head, its rows with it
    assert work.weight_bytes == body + head_bytes + (0 if tied else NUM_IDS * row)
    assert work.decode_weight_bytes == body + head_bytes + (0 if tied else row)
    assert work.decode is not None
    assert work.decode.num_bytes == (work.decode_weight_bytes or 0) + (work.kv_bytes or 0)


def test_gpt2_with_its_transposed_matrices_asks_what_its_formula_says() -> None:
    model = FAMILIES["gpt2"].build().model
    hidden, layers = model.config.n_embd, model.config.n_layer
    work = count_work(model, BATCH, output_tokens=5)

    def of(rows: int, pairs: int) -> int:
        return int(layers * (2 * rows * 12 * hidden**2 + 4 * pairs * hidden) + 2 * 2 * hidden * WORDS)

    assert work.flops == of(ROWS, 2 * causal_pairs(8, 8))
    assert work.decode_flops_by_dtype == {"float32": of(2, 2 * (8 + 2))}
    assert work.kv_bytes == 2 * layers * hidden * (8 + 2) * 4 * 2
    positions = hidden * 4
    body = nbytes(model.transformer.h, model.transformer.ln_f) + model.lm_head.weight.nbytes
    assert work.weight_bytes == body + 8 * positions
    assert work.decode_weight_bytes == body + positions


@pytest.mark.parametrize("name", [*FAMILIES, *ODD])
def test_of_dense_models_shapes_and_operators_agree(name: str) -> None:
    handle, batch = ({**FAMILIES, **ODD}[name].build(), {**FAMILIES, **ODD}[name].batch_for)
    inputs = batch(handle.model)
    flash = count_work(handle.model, inputs)
    handle.model.set_attn_implementation("eager")  # which PyTorch's own counter sees
    plain = count_work(handle.model, inputs)
    assert plain.flops == flops_by_torch(handle.model, inputs)
    assert plain.reason == flash.reason == ""
    assert plain.weight_bytes == flash.weight_bytes
    assert 0 < (plain.weight_bytes or 0) <= nbytes(handle.model)
    # what masks hide isn't asked
    assert 0.8 * (plain.flops or 0) <= (flash.flops or 0) <= (plain.flops or 0)


def test_a_causal_flag_and_the_mask_that_says_the_same_count_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 8, 16, generator=generator) for _ in range(3))
    mask = torch.ones(8, 8, dtype=torch.bool).tril()
    hidden = torch.zeros(8, 8).masked_fill(~mask, -math.inf)
    lowest = torch.zeros(2, 1, 8, 8).masked_fill(~mask, torch.finfo(torch.float32).min)

    class Attend(nn.Module):
        config = transformers.PretrainedConfig()

        def __init__(self, **options: Any) -> None:
            super().__init__()
            self.options, self.bias = options, nn.Parameter(torch.zeros(16))

        def forward(self, query: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(query + self.bias, key, value, **self.options)

    expected = 2 * 2 * (2 * 4 * 36) * 16
    for options in ({"is_causal": True}, {"attn_mask": mask}, {"attn_mask": hidden}, {"attn_mask": lowest}):
        assert count_work(Attend(**options), {"query": query}).flops == expected, options
    assert count_work(Attend(), {"query": query}).flops == 2 * 2 * (2 * 4 * 64) * 16
    assert count_work(Attend(), {"query": query}).weight_bytes == 64


class PerForward:
    """Counts the operations of each forward pass of a generation, and keeps how long the cache is."""

    def __init__(self, model: Any) -> None:
        self.flops: list[int] = []
        self.positions: list[int] = []
        self._forward = model.forward

    def __call__(self, **inputs: Any) -> Any:
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(False), torch.no_grad(), counter:
            output = self._forward(**inputs)
        self.flops.append(int(counter.get_total_flops()))
        self.positions.append(output.past_key_values.get_seq_length())
        return output


@pytest.mark.parametrize("name", ["gpt2", "llama-untied", "qwen3"])
@pytest.mark.parametrize("output_tokens", [2, 3, 10])
def test_the_counted_passes_are_those_of_a_real_generation(
    monkeypatch: pytest.MonkeyPatch, name: str, output_tokens: int
) -> None:
    model: Any = FAMILIES[name].build().model
    model.set_attn_implementation("eager")
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    work = count_work(model, batch, output_tokens)
    seen = PerForward(model)
    # generate looks at the signature of forward
    monkeypatch.setattr(seen, "__signature__", __import__("inspect").signature(model.forward), raising=False)
    monkeypatch.setattr(model, "forward", seen)
    model.generate(**batch, do_sample=False, min_new_tokens=output_tokens, max_new_tokens=output_tokens)
    assert len(seen.flops) == output_tokens
    assert work.flops == seen.flops[0]
    middle = output_tokens // 2
    assert work.decode_flops_by_dtype == {"float32": float(seen.flops[middle])}
    config = model.config
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    assert work.kv_bytes == 2 * config.num_hidden_layers * heads * width * seen.positions[middle] * 4 * 2


def test_a_sliding_window_reads_no_more_than_its_window() -> None:
    model = FAMILIES["mistral"].build().model
    config = model.config
    work = count_work(model, BATCH, output_tokens=10)
    per_position = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 * 2
    assert config.sliding_window == 8
    assert work.kv_bytes == 8 * per_position


def by_group(bits_of_group: float) -> Callable[[int, int], float]:
    """Bytes of 4-bit codes in groups of 32 that have so many bits besides."""
    return lambda rows, columns: rows * columns / 8 * (4 + bits_of_group / 32)


def by_row(rows: int, columns: int) -> float:
    """int8 codes and a float32 scale for each output."""
    return rows * columns + 4 * rows


def two_of_four(rows: int, columns: int) -> float:
    """Half of the float32 numbers, and two bits for the place of each."""
    return rows * columns / 2 * (4 + 2 / 8)


MASK = {"sparsity": 0.5, "mask_structure": "2:4"}
Steps = list[tuple[str, dict[str, Any]]]
# steps, what they leave of a matrix (out x in), and in which type it is multiplied
PACKED: dict[str, tuple[Steps, Callable[[int, int], float], str]] = {
    "rtn": ([("rtn", {"bits": 4, "group_size": 32})], by_group(16 + 4), "float32"),
    "int8-dynamic": ([("int8-dynamic", {})], by_row, "int8"),
    "int8-weight-only": ([("int8-weight-only", {})], by_row, "float32"),
    "int4-weight-only": ([("int4-weight-only", {"group_size": 32})], by_group(16 + 16), "bfloat16"),
    "bnb-int8": ([("bnb-int8", {})], by_row, "int8"),
    "2:4": ([("magnitude", MASK), ("semi-structured", {})], two_of_four, "float32"),
    "masked": ([("magnitude", MASK)], lambda rows, columns: 4 * rows * columns, "float32"),
    "torchao": ([("torchao", {"config": "Int8DynamicActivationInt8WeightConfig"})], by_row, "int8"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", PACKED)
def test_packed_layers_ask_the_same_products_and_fewer_bytes(name: str) -> None:
    steps, stored, dtype = PACKED[name]
    handle = tiny_causal_lm(tied=False)
    dense = count_work(handle.model, BATCH, output_tokens=4)
    shapes = [tuple(each.shape) for each in handle.model.model.layers.parameters() if each.dim() == 2]
    packed = applied(handle, *steps)
    work = count_work(packed.model, BATCH, output_tokens=4)
    assert work.flops == dense.flops
    inside = sum(2.0 * ROWS * rows * columns for rows, columns in shapes)
    if dtype != "float32":
        assert work.flops_by_dtype[dtype] == inside
        assert work.flops_by_dtype["float32"] == (dense.flops or 0) - inside
    assert work.compute_dtype == dtype
    saved = sum(rows * columns * 4 - stored(rows, columns) for rows, columns in shapes)
    slack = 0 if name != "torchao" else 8 * len(shapes) * 64  # zero points of its own
    assert (dense.weight_bytes or 0) - (work.weight_bytes or 0) == pytest.approx(saved, abs=slack)
    assert (dense.decode_weight_bytes or 0) - (work.decode_weight_bytes or 0) == pytest.approx(saved, abs=slack)
    assert work.kv_bytes == dense.kv_bytes
    assert work.reason == ""


def test_every_stored_byte_of_packed_layers_is_read() -> None:
    handle = applied(FAMILIES["gpt2"].build(), ("rtn", {"bits": 3, "group_size": 32}))
    model = handle.model
    layers = stored_layers(model)
    packed = sum(tensor.nbytes for layer in layers.values() for tensor in layer.stored_tensors().values())
    norms = sum(each.nbytes for name, each in model.named_parameters() if ".ln_" in name)
    tables = model.lm_head.weight.nbytes + 8 * model.config.n_embd * 4
    assert count_work(model, BATCH).weight_bytes == packed + norms + tables


def test_weights_in_bfloat16_are_half_the_bytes_and_multiplied_as_such() -> None:
    handle = tiny_classifier()
    before = count_work(handle.model, BATCH)
    after = count_work(applied(handle, ("cast", {"dtype": "bfloat16"})).model, BATCH)
    assert after.flops_by_dtype == {"bfloat16": before.flops}
    assert after.weight_bytes == (before.weight_bytes or 0) // 2


def test_low_rank_layers_ask_for_both_of_their_factors() -> None:
    handle = FAMILIES["bert"].build()
    before = count_work(handle.model, BATCH)
    model = applied(handle, ("low-rank", {"ratio": 0.5})).model
    layers = [each for each in model.modules() if isinstance(each, LowRankLinear)]
    work = count_work(model, BATCH)
    dense = sum(each.in_features * each.out_features for each in layers)
    factors = sum(each.rank * (each.in_features + each.out_features) for each in layers)
    assert layers
    assert factors < dense
    assert (before.flops or 0) - (work.flops or 0) == 2 * ROWS * (dense - factors)
    assert (before.weight_bytes or 0) - (work.weight_bytes or 0) == 4 * (dense - factors)


def test_fewer_layers_ask_proportionally_less() -> None:
    handle = tiny_causal_lm(num_layers=4)
    before = count_work(handle.model, BATCH, 4)
    after = count_work(applied(handle, ("depth-pruning", {"num_layers": 1})).model, BATCH, 4)
    config = handle.model.config
    layer = llama_layer_flops(config, ROWS, 2 * causal_pairs(8, 8))
    assert (before.flops or 0) - (after.flops or 0) == 3 * layer
    assert (before.weight_bytes or 0) - (after.weight_bytes or 0) == 3 * nbytes(handle.model.model.layers[0])
    assert before.kv_bytes == 4 * (after.kv_bytes or 0)


def test_sparse_kernels_do_half_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [("magnitude", {"sparsity": 0.5, "mask_structure": "2:4"}), ("semi-structured", {})]
    model = applied(tiny_classifier(), *steps).model
    dense = count_work(model, BATCH)
    sparse = sum(2 * ROWS * each.num_weights for each in stored_layers(model).values())
    monkeypatch.setattr(SemiStructuredLinear, "kernel", "sparse")
    assert count_work(model, BATCH).flops == (dense.flops or 0) - sparse / 2


def test_quantized_modules_of_pytorch_are_counted_by_their_shapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dense = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8, bias=False))
        quantized = torch.ao.quantization.quantize_dynamic(dense, {nn.Linear}, torch.qint8)  # type: ignore[no-untyped-call]
        work = count_work(OnX(quantized), {"x": torch.randn(5, 32)})
    assert work.flops_by_dtype == {"int8": 2.0 * 5 * (32 * 16 + 16 * 8)}
    per_channel = (32 * 16 + 16 * 4) + 16 * 8
    assert work.weight_bytes == pytest.approx(per_channel, abs=100)  # scales


class OnX(nn.Module):
    """A network that reads `x`; something floating in it says where it is."""

    config = transformers.PretrainedConfig()

    def __init__(self, network: nn.Module, after: Callable[[torch.Tensor], torch.Tensor] = torch.relu) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))
        self.network, self.after = network, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = self.after(self.network(x))
        return given


def test_what_is_never_read_is_not_counted() -> None:
    assert count_work(OnX(nn.Linear(4, 2)), {"x": torch.randn(1, 4)}).weight_bytes == 4 * (8 + 2)


def test_weights_that_are_used_without_their_module_are_read_too() -> None:
    model = OnX(nn.MultiheadAttention(16, 4, batch_first=True), lambda pair: pair[0])
    model.network.forward = lambda x, whole=nn.MultiheadAttention.forward: whole(model.network, x, x, x)
    model.train()  # no fast path
    work = count_work(model, {"x": torch.randn(2, 8, 16)})
    assert work.weight_bytes == nbytes(model.network)
    assert work.flops == 2 * ROWS * 4 * 16**2 + 2 * 2 * 2 * 64 * 16
    assert work.reason == ""


def test_an_operator_that_multiplies_unseen_makes_the_count_unknown() -> None:
    lstm = nn.LSTM(4, 4, batch_first=True)
    work = count_work(OnX(lstm, lambda pair: pair[0]), {"x": torch.randn(2, 3, 4)})
    assert work.flops is None
    assert work.forward is None
    assert "lstm" in work.reason or "rnn" in work.reason


def test_a_linear_module_with_another_inside_is_not_guessed() -> None:
    class Adapted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            given: torch.Tensor = super().forward(x) + self.inner(x)
            return given

    work = count_work(OnX(Adapted()), {"x": torch.randn(2, 4)})
    assert work.flops is None
    assert "Adapted" in work.reason


def test_weights_that_a_module_keeps_to_itself_leave_the_bytes_unknown() -> None:
    class Opaque(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.weight = nn.Parameter(torch.empty(4, 4, device="meta"), requires_grad=False)
            self._kept = torch.randn(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self._kept

    work = count_work(OnX(Opaque()), {"x": torch.randn(2, 4)})
    assert work.flops == 2 * 2 * 16
    assert work.weight_bytes is None
    assert "network: weight has no storage" in work.reason


def test_a_model_that_cannot_be_run_under_a_tally_has_a_reason() -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no\nkernel")

    work = count_work(OnX(nn.Linear(4, 4), fail), {"x": torch.randn(2, 4)})
    assert (work.flops, work.weight_bytes) == (None, None)
    assert work.reason == "the pass can't be run while it is counted: no kernel"


@pytest.mark.parametrize(
    ("name", "output_tokens", "says"),
    [("whisper", 4, "encoder-decoder"), ("bert", 4, "no key-value cache"), ("gpt2", 1, "no decode step")],
)
def test_a_decode_step_that_is_not_there_has_a_reason(name: str, output_tokens: int, says: str) -> None:
    handle = FAMILIES[name].build()
    work = count_work(handle.model, FAMILIES[name].batch_for(handle.model), output_tokens)
    assert work.flops
    assert work.weight_bytes
    assert (work.decode_weight_bytes, work.kv_bytes, work.decode) == (None, None, None)
    assert says in work.reason


def test_a_generation_beyond_the_last_position_has_a_reason() -> None:
    work = count_work(FAMILIES["gpt2"].build().model, BATCH, output_tokens=500)
    assert work.kv_bytes is None
    assert "can't be run alone" in work.reason


def test_a_cache_that_is_more_than_keys_and_values_is_not_counted_as_one() -> None:
    config = transformers.MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, state_size=4)
    work = count_work(transformers.MambaForCausalLM(config).eval(), BATCH, output_tokens=4)
    assert work.kv_bytes is None
    assert work.decode is None
    assert work.reason


def test_only_the_experts_that_are_chosen_are_read() -> None:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config).eval()
    chosen: list[int] = []
    for layer in model.model.layers:
        layer.mlp.experts.register_forward_pre_hook(lambda _, args: chosen.append(args[1].unique().numel()))
    one = {"input_ids": IDS[:1, :2]}
    found = []
    for implementation in ("eager", "grouped_mm", "batched_mm"):
        model.set_experts_implementation(implementation)
        found.append(count_work(model, one))
    expert = 3 * 32 * 48
    others = nbytes(model.model.layers, model.model.norm, model.lm_head) - 2 * 8 * expert * 4
    read = others + sum(chosen[:2]) * expert * 4 + 2 * 32 * 4
    assert sum(chosen[:2]) < 16
    assert [each.weight_bytes for each in found] == [read] * 3
    attention = 2 * 2 * (32 * 32 * 2 + 32 * 16 * 2) + 2 * 2 * 3 * 32
    expected = 2 * (attention + 2 * 2 * 32 * 8 + 2 * 2 * 2 * expert) + 2 * 2 * 32 * WORDS
    assert [each.flops for each in found] == [expected] * 3


def test_counting_leaves_the_model_as_it_was() -> None:
    handle = tiny_causal_lm()
    with torch.no_grad():
        before = handle.model(**BATCH).logits
    count_work(handle.model, BATCH, output_tokens=4)
    with torch.no_grad():
        after = handle.model(**BATCH).logits
    assert torch.equal(before, after)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in handle.model.modules())


PRODUCTS = """
    aten.mm aten.addmm_ aten._scaled_mm aten._weight_int4pack_mm_for_cpu aten.linear aten.convolution aten.vdot
    aten.mkldnn_rnn_layer aten._scaled_dot_product_attention_math aten._transformer_encoder_layer_fwd flex_attention
    mkldnn._linear_pointwise quantized.linear_dynamic bitsandbytes.gemv_4bit bitsandbytes.int8_scaled_mm
    torchao.da8w4_linear_cpu flash_attn._flash_attn_forward
"""
OTHERS = """
    aten.mul aten.gamma aten.embedding aten._convert_weight_to_int4pack aten.upsample_bilinear2d aten.native_layer_norm
    aten._softmax aten.cumsum aten.moveaxis aten._to_copy
"""


def test_products_are_known_by_their_names() -> None:
    assert [name for name in PRODUCTS.split() if not multiplies(name)] == []
    assert [name for name in OTHERS.split() if multiplies(name)] == []


def test_a_layer_that_only_says_what_it_stores_is_believed() -> None:
    class Hidden(StoredLayer):
        kind = "testing-hidden"

        def __init__(self) -> None:
            super().__init__(4, 6)
            self._kept = [torch.randn(6, 4)]
            self.bias = nn.Parameter(torch.zeros(6))

        def stored_tensors(self) -> dict[str, torch.Tensor]:
            return {"weight": self._kept[0].half(), "bias": self.bias}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.linear(x, self._kept[0], self.bias)

    work = count_work(OnX(Hidden()), {"x": torch.randn(2, 4)})
    assert work.weight_bytes == 2 * 24 + 4 * 6
    assert work.flops == 2 * 2 * 24
