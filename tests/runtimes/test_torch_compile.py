"""Compiled sessions against eager PyTorch. Most use a backend that compiles nothing to C++: the logic is the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import FAMILIES
from pydantic import ValidationError

from compressbench.core.deploying import SaysWhatItRuns, facts_of
from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Decoding, Runtime, Session
from compressbench.core.registry import runtimes
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.int8_weight_only import Int8WeightOnly
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.models.size import stored_layers
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.compiled_session import CompiledSession
from compressbench.runtimes.torch_compile import TorchCompile
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier, tiny_encoder, tiny_image_classifier

PLAIN = TorchCompile(backend="eager")


def ids_of(rows: int, length: int, *, left: bool = False, words: int = 19) -> dict[str, torch.Tensor]:
    """Token ids of which the first row is padded where there are several."""
    ids = torch.randint(4, words, (rows, length), generator=torch.Generator().manual_seed(rows * 100 + length))
    mask = torch.ones_like(ids)
    if rows > 1:
        mask[0, : length // 2] = not left
        mask[0, length // 2 :] = left
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return tiny_causal_lm(num_layers=2, tied=False)


@pytest.fixture(scope="module")
def shakespeare() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm", device="cpu")


def test_the_word_torch_compile_is_this_runtime() -> None:
    runtime: Runtime[ModelHandle] = TorchCompile()
    assert runtimes.resolve("torch-compile") is TorchCompile
    assert runtime.requires == ("torch",)
    assert "speech-seq2seq" not in (facts_of(runtime).heads or ())
    assert facts_of(TorchCompile(cuda_graphs=True)).devices == {"cuda"}
    assert facts_of(TorchCompile(coordinate_descent=True)).devices == {"cuda"}
    assert facts_of(TorchCompile(freezing=True)).devices == {"cpu"}
    assert facts_of(TorchCompile(backend="openvino")).requires == ("torch", "openvino")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "inducter"}, "Did you mean 'inductor'"),
        ({"backend": "eager", "mode": "max-autotune"}, "settings of inductor"),
        ({"backend": "aot_eager", "freezing": True}, "settings of inductor"),
        ({"backend": "eager", "coordinate_descent": True}, "settings of inductor"),
        ({"freezing": True, "coordinate_descent": True}, "give one of them"),
        ({"mode": "reduce-overhead", "cuda_graphs": True}, "captures already"),
    ],
)
def test_options_that_do_not_go_together_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TorchCompile(**options)


def test_a_setting_that_older_records_lack_stands_only_where_it_is_used() -> None:
    assert "coordinate_descent" not in TorchCompile().model_dump(mode="json")
    asked = TorchCompile(coordinate_descent=True)
    assert asked.model_dump(mode="json")["coordinate_descent"] is True
    assert asked.settings("cuda").arguments["options"] == {"coordinate_descent_tuning": True}


def test_a_head_or_device_that_it_does_not_run_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="speech"):
        PLAIN.prepare(tiny_classifier().__class__(**{**vars(tiny_classifier()), "head": "speech-seq2seq"}), "cpu")
    with pytest.raises(UnsupportedError, match="CUDA device"):
        TorchCompile(backend="eager", cuda_graphs=True).prepare(tiny_causal_lm(), "cpu")


def test_inductor_without_a_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.cpp_builder as builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none_there() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(builder, "get_cpp_compiler", none_there)
    with pytest.raises(UnsupportedError, match=r"apt-get install g\+\+"):
        TorchCompile().prepare(tiny_classifier(), "cpu")
    PLAIN.prepare(tiny_classifier(), "cpu").close()


@pytest.mark.parametrize("make", [tiny_classifier, tiny_encoder, tiny_causal_lm])
def test_texts_give_what_eager_pytorch_gives_at_every_shape(make: Any) -> None:
    handle = make(num_layers=1)
    eager, session = TorchEager().prepare(handle, "cpu"), PLAIN.prepare(handle, "cpu")
    for rows, length in ((1, 5), (3, 9), (2, 6)):
        batch = ids_of(rows, length, left=handle.head == "causal-lm")
        assert torch.allclose(session(batch), eager(batch), atol=1e-5)


def test_pictures_give_what_eager_pytorch_gives() -> None:
    handle = tiny_image_classifier()
    eager, session = TorchEager().prepare(handle, "cpu"), TorchCompile(backend="aot_eager").prepare(handle, "cpu")
    for rows in (1, 3):
        batch = {"pixel_values": torch.randn(rows, 3, 16, 16, dtype=torch.float64)}
        assert torch.allclose(session(batch), eager(batch), atol=1e-5)
        assert torch.equal(session(batch).argmax(-1), eager(batch).argmax(-1))


def test_the_embedded_classifier_gives_the_same_answers() -> None:
    handle = load_model(ModelSpec(id="embedded:minilm-banking77"), "sequence-classification", device="cpu")
    eager, session = TorchEager().prepare(handle, "cpu"), PLAIN.prepare(handle, "cpu")
    for rows, length in ((1, 12), (4, 20)):
        batch = ids_of(rows, length, words=20_000)
        found, expected = session(batch), eager(batch)
        assert float((found - expected).abs().max()) < 1e-3
        assert torch.equal(found.argmax(-1), expected.argmax(-1))


def test_the_embedded_language_model_generates_and_writes_the_same(shakespeare: ModelHandle) -> None:
    eager, session = TorchEager().prepare(shakespeare, "cpu"), PLAIN.prepare(shakespeare, "cpu")
    batch = ids_of(2, 9, left=True, words=1000)
    told = list[int]()
    expected = eager.generate(batch, 20)
    assert torch.equal(session.generate(batch, 20, lambda: told.append(1)), expected)
    assert len(told) == 20
    assert torch.equal(session.generate(batch, 20), expected), "the cache was emptied"
    assert session.kv_cache_bytes(batch, 20) == 2 * 2 * 2 * 64 * 32 * 4 * 4  # all 64 positions of 4 layers
    ended, drawn = Decoding(max_new_tokens=12, until=("\n",)), Decoding(max_new_tokens=8, temperature=0.8, seed=3)
    for decoding in (ended, drawn):
        assert session.write(batch, decoding) == eager.write(batch, decoding)
    use = session.kernels(batch, 4)
    assert use is not None
    assert use.fallbacks == ()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_other_decoders_generate_the_same(family: str) -> None:
    handle = FAMILIES[family].build()
    eager, session = TorchEager().prepare(handle, "cpu"), PLAIN.prepare(handle, "cpu")
    batch = ids_of(1, 6)
    assert torch.equal(session.generate(batch, 12), eager.generate(batch, 12))


def test_a_model_without_a_static_cache_decodes_eagerly_and_says_so() -> None:
    import transformers

    torch.manual_seed(0)
    handle = tiny_causal_lm(num_layers=1)
    config = transformers.OpenAIGPTConfig(vocab_size=19, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    handle = handle.with_model(transformers.OpenAIGPTLMHeadModel(config).eval())
    eager, session = TorchEager().prepare(handle, "cpu"), PLAIN.prepare(handle, "cpu")
    batch = {"input_ids": ids_of(1, 4)["input_ids"]}
    assert torch.equal(session.generate(batch, 5), eager.generate(batch, 5))
    use = session.kernels(batch, 5)
    assert use is not None
    assert any("no static cache" in each for each in use.fallbacks)


@pytest.mark.parametrize("step", ["int8-dynamic", "int8-weight-only", "torchao"])
def test_stored_layers_are_compiled_without_a_break(step: str) -> None:
    from compressbench.core.registry import methods

    options: dict[str, Any] = {}
    if step == "torchao":
        pytest.importorskip("torchao", reason="torchao isn't installed")
        options = {"config": "Int8DynamicActivationInt8WeightConfig"}
    handle = methods.resolve(step)(**options).apply(tiny_classifier(num_layers=1))
    eager, session = TorchEager().prepare(handle, "cpu"), PLAIN.prepare(handle, "cpu")
    batch = ids_of(2, 8)
    assert torch.allclose(session(batch), eager(batch), atol=1e-4)
    use = session.kernels(batch)
    assert use is not None
    assert use.fallbacks == ()
    assert any("Torch-Compiled Region" in name for name in use.counts)
    assert session.deployed.precision == ("float32" if step == "int8-weight-only" else "int8")
    if step == "int8-dynamic":
        assert use.counts["compressbench::int8_dynamic float32"] == use.counts["quantized::linear_dynamic float32"]


def test_compilations_are_timed_and_recompilations_counted() -> None:
    session = TorchCompile(backend="eager", dynamic=False).prepare(tiny_classifier(num_layers=1), "cpu")
    as_told: SaysWhatItRuns = session
    assert as_told.deployed.seconds == {"compile_s": 0.0}
    session(ids_of(1, 4))
    first = session.deployed
    assert first.seconds["compile_s"] > 0
    assert first.notes == {"num_graphs": 1, "num_recompilations": 0, "num_graph_breaks": 0}
    assert first.engine.startswith("torch 2")
    assert first.engine.endswith(" eager")
    session(ids_of(1, 4))
    assert session.deployed == first, "a shape is compiled once"
    session(ids_of(1, 7))
    second = session.deployed
    assert second.notes["num_recompilations"] == 1
    assert "size mismatch" in str(second.notes["last_recompilation"])
    assert second.seconds["compile_s"] > first.seconds["compile_s"]


def test_two_compiled_sessions_live_side_by_side_and_closing_one_leaves_the_other() -> None:
    one, two = tiny_classifier(num_layers=1), tiny_classifier(num_layers=1, seed=1)
    fixed = TorchCompile(backend="eager", dynamic=False)
    first, second = fixed.prepare(one, "cpu"), fixed.prepare(two, "cpu")
    for length in range(3, 5):
        for session, handle in ((first, one), (second, two)):
            assert torch.allclose(session(ids_of(1, length)), TorchEager().prepare(handle, "cpu")(ids_of(1, length)))
    before = second.deployed
    assert before.notes["num_graphs"] == first.deployed.notes["num_graphs"] == 2
    gone = weakref.ref(one.model)
    first.close()
    del one, handle, session, first
    gc.collect()
    assert gone() is None, "a closed session keeps no weights"
    for length in range(3, 5):
        second(ids_of(1, length))
    assert second.deployed == before, "nothing was compiled again"


def test_a_graph_break_is_told() -> None:
    handle = tiny_classifier(num_layers=1)
    dropout = handle.model.dropout.forward

    def breaking(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        found: torch.Tensor = dropout(x)
        return found

    handle.model.dropout.forward = breaking
    session = PLAIN.prepare(handle, "cpu")
    session(ids_of(1, 4))
    assert int(session.deployed.notes["num_graph_breaks"]) >= 1
    use = session.kernels(ids_of(1, 4))
    assert use is not None
    assert "graph breaks left parts" in use.fallbacks[0]
    with pytest.raises(Exception, match="graph_break"):
        TorchCompile(backend="eager", fullgraph=True).prepare(handle, "cpu")(ids_of(1, 4))


def test_a_shape_that_is_compiled_a_second_time_is_told() -> None:
    handle = tiny_classifier(num_layers=1)
    session: CompiledSession = PLAIN.prepare(handle, "cpu")
    session(ids_of(1, 4))
    handle.model.dropout.p = 0.3  # a guard on the model itself
    handle.model.train()
    session(ids_of(1, 4))
    handle.model.eval()
    use = session.kernels(ids_of(1, 4))
    assert use is not None
    assert any("compiled again 1 times" in each for each in use.fallbacks)


def test_a_fused_kernel_of_other_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    session = PLAIN.prepare(tiny_classifier(num_layers=1), "cpu")
    session(ids_of(1, 4))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    use = session.kernels(ids_of(1, 4))
    assert use is not None
    assert any("compiled for 1 threads ran where 7" in each for each in use.fallbacks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("freezing", [False, True])
def test_inductor_gives_the_same_answers_through_fused_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shakespeare: ModelHandle, freezing: bool
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    runtime = TorchCompile(freezing=freezing)
    for handle in (tiny_classifier(num_layers=1), tiny_image_classifier(num_layers=1), shakespeare):
        eager, session = TorchEager().prepare(handle, "cpu"), runtime.prepare(handle, "cpu")
        is_picture = handle.head == "image-classification"
        batch = {"pixel_values": torch.randn(2, 3, 16, 16)} if is_picture else ids_of(2, 9, left=handle is shakespeare)
        found, expected = session(batch), eager(batch)
        assert float((found - expected).abs().max()) < 1e-3
        assert torch.equal(found.argmax(-1), expected.argmax(-1))
        use = session.kernels(batch)
        assert use is not None
        assert any("cpp_fused" in name for name in use.counts)
        assert use.fallbacks == ()
        if handle is shakespeare:
            assert torch.equal(session.generate(batch, 16), eager.generate(batch, 16))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_inductor_keeps_the_kernel_of_int8_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shakespeare: ModelHandle
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    handle = Int8WeightOnly().apply(Cast(dtype="bfloat16").apply(shakespeare.copy()))
    eager, session = TorchEager().prepare(handle, "cpu"), TorchCompile().prepare(handle, "cpu")
    batch = ids_of(1, 9, words=1000)
    found, expected = session(batch).float(), eager(batch).float()
    assert float((found - expected).norm() / expected.norm()) < 0.02
    assert torch.equal(session.generate(batch, 16), eager.generate(batch, 16))
    use = session.kernels(batch, 4)
    assert use is not None
    assert use.counts["aten::_weight_int8pack_mm bfloat16 int8"] == 4 * len(stored_layers(handle.model))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [
        {"cuda_graphs": True},
        {"cuda_graphs": True, "coordinate_descent": True},
        {"mode": "reduce-overhead"},
        {"backend": "eager"},
        {"backend": "eager", "cuda_graphs": True},
    ],
    ids=str,
)
def test_a_captured_step_generates_the_same_on_cuda(options: dict[str, Any], shakespeare: ModelHandle) -> None:
    handle = shakespeare.copy()
    eager, session = TorchEager().prepare(handle, "cuda"), TorchCompile(**options).prepare(handle, "cuda")
    as_session: Session = session
    batch = ids_of(2, 9, left=True, words=1000)
    for _ in range(2):
        assert torch.equal(as_session.generate(batch, 40).cpu(), eager.generate(batch, 40).cpu())
