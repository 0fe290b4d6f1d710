from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from compressbench.core.errors import ModelError
from compressbench.core.protocols import Runtime, Session
from compressbench.core.registry import runtimes
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.device import prepare_device, usable_cores
from compressbench.runtimes.torch_eager import TorchEager, TorchSession
from compressbench.testing import tiny_causal_lm, tiny_classifier

IDS = torch.tensor([[2, 4, 6, 8], [2, 5, 7, 9]])
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return tiny_causal_lm()


def test_the_word_torch_is_this_runtime() -> None:
    runtime: Runtime[ModelHandle] = TorchEager()
    assert runtimes.resolve("torch") is TorchEager
    assert runtime.requires == ("torch",)


def test_a_session_gives_the_models_logits_without_a_graph(causal_lm: ModelHandle) -> None:
    session: Session = TorchEager().prepare(causal_lm, "cpu")
    found = session(BATCH)
    assert found.shape == (2, 4, 19)
    assert found.is_inference()
    assert not found.requires_grad
    assert torch.equal(found, causal_lm.model(**BATCH).logits)
    session.synchronize()


def test_a_model_in_training_mode_is_measured_without_dropout() -> None:
    handle = tiny_classifier()
    expected = handle.model(**BATCH).logits
    handle.model.train()
    assert not torch.equal(handle.model(**BATCH).logits, expected)
    session = TorchEager().prepare(handle, "cpu")
    assert torch.equal(session(BATCH), expected)
    assert torch.equal(session(BATCH), expected)


@pytest.mark.parametrize("num_tokens", [1, 7, 30])
def test_generation_is_greedy_and_exactly_as_long_as_asked(causal_lm: ModelHandle, num_tokens: int) -> None:
    session = TorchEager().prepare(causal_lm, "cpu")
    found = session.generate(BATCH, num_tokens)
    assert found.shape == (2, 4 + num_tokens)
    assert torch.equal(found[:, :4], IDS)
    ids = IDS
    for _ in range(num_tokens):  # the end-of-text token (3) may not come before the last
        logits = session({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[:, -1].clone()
        logits[:, 3] = -torch.inf
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(found, ids)


def test_the_end_of_the_text_does_not_cut_generation_short() -> None:
    handle = tiny_causal_lm(num_layers=1, tied=False)
    with torch.no_grad():
        handle.model.lm_head.weight.zero_()
        hidden = handle.model.model(**BATCH).last_hidden_state.mean(dim=(0, 1))
        handle.model.lm_head.weight[3] = hidden  # the end of the text is always the likeliest
    assert TorchEager().prepare(handle, "cpu").generate(BATCH, 9).shape == (2, 13)


def test_a_closed_session_lets_go_of_the_model(causal_lm: ModelHandle) -> None:
    session = TorchSession(causal_lm.model, "cpu")
    session.close()
    with pytest.raises(AttributeError):
        session(BATCH)


@pytest.fixture
def settings() -> Iterator[None]:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    tf32 = torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.mark.usefixtures("settings")
def test_the_threads_are_pinned_and_float32_stays_float32() -> None:
    torch.set_float32_matmul_precision("medium")
    assert prepare_device("cpu", 1) == ("cpu", 1)
    assert torch.get_num_threads() == 1
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 is False
    assert prepare_device("cpu", None) == ("cpu", usable_cores())
    assert torch.get_num_threads() == usable_cores()


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(("wanted", "has_cuda", "expected"), [("auto", False, "cpu"), ("auto", True, "cuda")])
def test_auto_takes_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, wanted: str, has_cuda: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert prepare_device(wanted, 1)[0] == expected
    assert prepare_device("cpu", 1)[0] == "cpu"


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="there is no CUDA device here"):
        prepare_device("cuda", None)


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 5, 9}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores() == 1
