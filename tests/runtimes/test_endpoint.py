"""The runtime `endpoint` against a server process with a known schedule, which breaks in every way it is asked to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from endpoint_parts import BATCH, opened, sent_for

from compressbench.core.errors import CellError
from compressbench.core.protocols import Decoding
from compressbench.measure.calls import caller
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.endpoint import Endpoint
from compressbench.runtimes.endpoint_errors import EndpointError
from compressbench.runtimes.endpoint_http import Http, Stream
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing.endpoint import Running, server_process, server_thread
from compressbench.testing.endpoint_model import ModelTokens


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with server_process() as running:
        yield running


@pytest.fixture(scope="module")
def model_url(handle: ModelHandle) -> Iterator[str]:
    with server_thread(ModelTokens(handle)) as url:
        yield url


def until_undisturbed(measure: Callable[[str], list[tuple[float, float]]]) -> None:
    """Ours and theirs must agree to 2 % in one of six tries: whatever else runs on the machine may spoil some."""
    for number in range(6):
        pairs = measure(f"try {number} of {measure.__qualname__}")
        if all(ours == pytest.approx(theirs, rel=0.02) for ours, theirs in pairs):
            return
    raise AssertionError(f"ours and theirs in nanoseconds: {pairs}")


def test_times_are_those_of_the_servers_own_log(server: Running, handle: ModelHandle) -> None:
    """TTFT from a request of 200 ms, TPOT from 5 gaps of 100 ms: within 2 % of what the server did by the same clock."""

    def measure(mark: str) -> list[tuple[float, float]]:
        call = caller(opened(server, handle, mark=mark, first_s=0.2, gaps_s=[0.1]), [BATCH], 6)
        call(0)
        found, (sent,) = call.take(), sent_for(server, mark)
        assert found.num_tokens == (6,)
        ours = (found.first_token_ns[0], sum(found.token_gaps_ns) / 5)
        return list(
            zip(ours, (sent.sent_ns[0] - sent.received_ns, (sent.sent_ns[-1] - sent.sent_ns[0]) / 5), strict=True)
        )

    until_undisturbed(measure)


def test_an_event_of_several_tokens_is_told_once_for_each(server: Running, handle: ModelHandle) -> None:
    def measure(mark: str) -> list[tuple[float, float]]:
        session = opened(server, handle, mark=mark, first_s=0.02, gaps_s=[0.2], per_event=3)
        call = caller(session, [BATCH], 7)
        call(0)
        found, (sent,) = call.take(), sent_for(server, mark)
        assert found.num_tokens == (7,)
        assert len(sent.sent_ns) == 3
        short = [found.token_gaps_ns[at] for at in (0, 1, 3, 4)]
        long = [found.token_gaps_ns[at] for at in (2, 5)]
        assert max(short) < min(long)
        assert session.deployed.notes["tokens_per_event"] == pytest.approx(7 / 3, abs=1e-3)
        return [(sum(found.token_gaps_ns), sent.sent_ns[-1] - sent.sent_ns[0])]

    until_undisturbed(measure)


def test_rows_are_asked_at_once_and_a_position_is_there_when_all_rows_have_it(
    server: Running, handle: ModelHandle
) -> None:
    batch = {"input_ids": torch.tensor([[0, 5, 6], [7, 8, 9], [1, 2, 3]])}

    def measure(mark: str) -> list[tuple[float, float]]:
        call = caller(opened(server, handle, mark=mark, first_s=0.3, gaps_s=[0.1]), [batch], 4)
        call(0)
        found, sent = call.take(), sent_for(server, mark)
        assert len(sent) == 3
        assert max(each.received_ns for each in sent) < min(each.sent_ns[0] for each in sent)
        positions = [max(each.sent_ns[at] for each in sent) for at in range(4)]
        return [(sum(found.token_gaps_ns), positions[-1] - positions[0])]

    until_undisturbed(measure)


@pytest.mark.parametrize("told", ["ids", "log-probs", "running", "usage"])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_tokens_are_counted_by_whatever_the_server_says(
    server: Running, handle: ModelHandle, told: str, api: str
) -> None:
    session = opened(server, handle, {"api": api}, told=told)
    output = session.generate(BATCH, 6)
    assert output.shape == (1, 9)
    assert torch.equal(output[:, :3], BATCH["input_ids"])
    if told == "ids":
        assert output[0, 3:].tolist() == [100, 101, 102, 103, 104, 105]
    else:
        assert session.deployed.notes["token_ids_from"] == "its text, encoded here"  # noqa: S105


def test_a_server_that_counts_nothing_is_refused(server: Running, handle: ModelHandle) -> None:
    session = opened(server, handle, told="nothing")
    with pytest.raises(EndpointError, match="doesn't say how many tokens"):
        session.generate(BATCH, 6)


def test_several_tokens_in_an_event_are_refused_where_only_the_sum_is_known(
    server: Running, handle: ModelHandle
) -> None:
    session = opened(server, handle, told="usage", per_event=2)
    with pytest.raises(EndpointError, match="6 tokens in 3 events"):
        session.generate(BATCH, 6)


def test_a_wrong_count_is_an_error(server: Running, handle: ModelHandle) -> None:
    with pytest.raises(EndpointError) as caught:
        opened(server, handle, off_by=2).generate(BATCH, 6)
    assert caught.value.kind == "wrong-count"


@pytest.mark.parametrize("ends_at", [3, 9])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_server_that_does_not_keep_the_length_fails_its_cell(
    server: Running, handle: ModelHandle, ends_at: int, rows: int
) -> None:
    session = opened(server, handle, ends_at=ends_at)
    call = caller(session, [{"input_ids": BATCH["input_ids"].repeat(rows, 1)}], 6)
    with pytest.raises(CellError, match=f"got {ends_at} tokens"):
        call(0)


def test_optional_fields_that_are_refused_are_left_out(server: Running, handle: ModelHandle) -> None:
    refuses = ["return_token_ids", "min_tokens", "repetition_penalty"]
    session = opened(server, handle, told="running", refuses=refuses)
    assert session.generate(BATCH, 4).shape == (1, 7)
    assert session.deployed.notes["accepted_fields"] == "usage, running usage, timings, no prompt cache, ignore_eos"


def test_a_server_that_refuses_fields_may_count_only_where_it_is_asked_to(server: Running, handle: ModelHandle) -> None:
    session = opened(server, handle, told="asked", refuses=["min_tokens"])
    assert session.generate(BATCH, 4).shape == (1, 7)


@pytest.mark.parametrize(("refuses", "num_requests"), [([], 1), (["repetition_penalty"], 10)])
def test_a_probe_asks_nothing_twice(
    server: Running, handle: ModelHandle, monkeypatch: pytest.MonkeyPatch, refuses: list[str], num_requests: int
) -> None:
    sent, send = list[str](), Http.stream

    def stream(http: Http, path: str, body: Mapping[str, Any]) -> Stream:
        sent.append(json.dumps(body))
        return send(http, path, body)

    monkeypatch.setattr(Http, "stream", stream)
    opened(server, handle, refuses=refuses)
    assert len(sent) == len(set(sent)) == num_requests


def test_prompts_are_token_ids_and_a_server_that_takes_none_must_be_named(server: Running, handle: ModelHandle) -> None:
    with pytest.raises(EndpointError, match="say prompts: text"):
        opened(server, handle, refuses=["tokens"])
    session = opened(server, handle, {"prompts": "text"}, refuses=["tokens"])
    assert session.generate(BATCH, 4).shape == (1, 7)
    assert session.deployed.notes["prompts"] == "text, completions"


def test_a_model_behind_the_api_writes_what_it_writes_here(model_url: str, handle: ModelHandle) -> None:
    session = Endpoint(url=model_url, model="m").prepare(handle, "cpu")
    here = TorchEager().prepare(handle, "cpu")
    batch = {
        "input_ids": torch.tensor([[0, 5, 6], [7, 8, 9]]),
        "attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]),
    }
    for rows in (slice(1, 2), slice(0, 2)):
        part = {name: tensor[rows] for name, tensor in batch.items()}
        assert torch.equal(session.generate(part, 24), here.generate(part, 24))
    decoding = Decoding(max_new_tokens=24, until=("\n", "the"))
    assert session.write(batch, decoding) == here.write(batch, decoding)
    assert "prompt_tokens_differ" not in session.deployed.notes


def test_a_generation_that_is_given_up_leaves_nothing_behind(model_url: str, handle: ModelHandle) -> None:
    """Calls beside timed blocks are, when the meter has moved."""
    session = Endpoint(url=model_url, model="m").prepare(handle, "cpu")
    expected = session.generate(BATCH, 6)
    call = caller(session, [BATCH], 6)
    for enough in (1, 3):
        left = iter([False] * (enough - 1))
        call.until(0, lambda left=left: next(left, True))  # type: ignore[misc]
        assert session.generate(BATCH, 6).tolist() == expected.tolist()
    session.close()


def test_samples_of_a_prompt_differ_and_come_again_with_their_seed(model_url: str, handle: ModelHandle) -> None:
    session = Endpoint(url=model_url, model="m").prepare(handle, "cpu")
    decoding = Decoding(max_new_tokens=12, temperature=1.0, top_p=0.95, num_samples=4, seed=3)
    first = session.write(BATCH, decoding)
    assert len({tuple(each.tokens) for each in first}) > 1
    assert session.write(BATCH, decoding) == first


@pytest.mark.parametrize(
    ("options", "refuses", "is_cached"),
    [({}, [], False), ({"prefix_cache": True}, [], True), ({}, ["cache_salt"], True)],
)
def test_a_prompt_that_comes_again_is_read_again_unless_a_cache_is_wanted(
    server: Running, handle: ModelHandle, options: dict[str, Any], refuses: list[str], is_cached: bool
) -> None:
    session = opened(server, handle, options, caches=True, refuses=refuses)
    for _ in range(2):
        session.generate(BATCH, 3)
    assert ("cached_prompt_tokens" in session.deployed.notes) == is_cached
