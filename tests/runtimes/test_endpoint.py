"""The runtime `endpoint` against a server process with a known schedule, which breaks in every way it is asked to."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.deploying import SaysWhatItRuns, facts_of
from compressbench.core.errors import CellError, ModelError, UnsupportedError
from compressbench.core.protocols import Claim, Decoding, Session, Writes
from compressbench.measure.calls import caller
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.endpoint import Endpoint, EndpointSession
from compressbench.runtimes.endpoint_errors import EndpointError, failed
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing.endpoint import Running, Sent, server_process, server_thread
from compressbench.testing.endpoint_model import ModelTokens

BATCH = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}


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


def opened(
    server: Running, handle: ModelHandle, options: dict[str, Any] | None = None, **behave: Any
) -> EndpointSession:
    """A session that was probed in peace; its later requests are answered as `behave` says."""
    options = {"timeout_s": 10.0, **(options or {})}
    probed = {name: behave[name] for name in ("told", "refuses") if name in behave}
    session = Endpoint(url=server.url, model="m", extra_body={"behave": probed}, **options).prepare(handle, "cpu")
    later = Endpoint(url=server.url, model="m", extra_body={"behave": behave}, **options)
    session._options = later
    return session


def sent_for(server: Running, mark: str) -> list[Sent]:
    return [sent for sent in server.log() if sent.mark == mark]


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


BROKEN = {
    "cut-line": ("broken-stream", "cut within an event"),
    "garbage": ("broken-stream", "isn't JSON"),
    "no-done": ("broken-stream", "without \\[DONE\\]"),
    "bad-utf8": ("broken-stream", "isn't UTF-8"),
    "error": ("broken-stream", "out of memory"),
    "huge-line": ("broken-stream", "more than 4194304 bytes"),
    "close": ("died", "half-way"),
    "not-a-stream": ("broken-stream", "no stream of events"),
    "not-http": ("broken-stream", "isn't HTTP"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_stream_is_an_error_that_says_how(server: Running, handle: ModelHandle, fault: str) -> None:
    kind, words = BROKEN[fault]
    session = opened(server, handle, fault=fault)
    with pytest.raises(EndpointError, match=words) as caught:
        session.generate(BATCH, 6)
    assert caught.value.kind == kind
    session._options = Endpoint(url=server.url, model="m")
    assert session.generate(BATCH, 4).shape == (1, 7), "the next request has a connection of its own"


@pytest.mark.parametrize(("line_end", "pieces"), [("\r\n", 0), ("\r", 0), ("\n", 1), ("\r\n", 7)])
def test_streams_are_read_however_they_are_cut_and_commented(
    server: Running, handle: ModelHandle, line_end: str, pieces: int
) -> None:
    session = opened(server, handle, line_end=line_end, pieces=pieces, comments=True)
    assert session.generate(BATCH, 5)[0, 3:].tolist() == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("fault", ["stall", "trickle"])
def test_a_request_ends_at_its_time_though_the_server_goes_on(server: Running, handle: ModelHandle, fault: str) -> None:
    session = opened(server, handle, {"timeout_s": 0.4}, fault=fault)
    begun = time.monotonic()
    with pytest.raises(EndpointError, match=r"within 0\.4 s") as caught:
        session.generate(BATCH, 6)
    assert caught.value.kind == "timeout"
    assert time.monotonic() - begun < 10, "the server would have gone on for 30 s"


def test_a_server_that_dies_half_way_is_an_error(handle: ModelHandle) -> None:
    with server_process() as server:
        session = opened(server, handle, fault="die")
        with pytest.raises(EndpointError) as caught:
            session.generate(BATCH, 6)
        assert caught.value.kind == "died"
        server.process.wait(timeout=10)
        with pytest.raises(EndpointError) as caught:
            session.generate(BATCH, 6)
        assert caught.value.kind in {"connect", "died"}


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for_and_that_is_never_fast(server: Running, handle: ModelHandle, status: int) -> None:
    session = opened(server, handle, mark=f"busy {status}", status=status, times=1, retry_after="1")
    call = caller(session, [BATCH], 3)
    call(0)
    assert call.take().first_token_ns[0] > 1e9
    notes = session.deployed.notes
    assert (notes["num_retries"], notes["waited_for_retries_s"]) == (1, 1.0)


def test_without_a_word_of_when_the_waiting_doubles(server: Running, handle: ModelHandle) -> None:
    session, slept = opened(server, handle, mark="backoff", status=429, times=3), list[float]()
    session._retries = session._retries._replace(sleep=slept.append)
    session.generate(BATCH, 3)
    assert slept == [0.5, 1.0, 2.0]


def test_a_busy_server_is_not_waited_for_beyond_the_time_of_a_request(server: Running, handle: ModelHandle) -> None:
    session = opened(server, handle, status=429, retry_after="3600")
    begun = time.monotonic()
    with pytest.raises(EndpointError, match="3600 s more after 1 tries"):
        session.generate(BATCH, 3)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("status", [400, 401, 404, 500, 502])
def test_other_refusals_are_errors_at_once(server: Running, handle: ModelHandle, status: int) -> None:
    session = opened(server, handle, mark=f"status {status}", status=status, times=1)
    with pytest.raises(EndpointError, match=f"answered {status}") as caught:
        session.generate(BATCH, 3)
    assert caught.value.kind == f"http-{status}"
    assert session.deployed.notes["num_retries"] == 0


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_is_refused(server: Running, handle: ModelHandle, status: int) -> None:
    session = opened(server, handle, status=status, location="http://elsewhere.invalid/v1")
    with pytest.raises(EndpointError, match=r"elsewhere\.invalid") as caught:
        session.generate(BATCH, 3)
    assert caught.value.kind == "redirect"


def test_optional_fields_that_are_refused_are_left_out(server: Running, handle: ModelHandle) -> None:
    refuses = ["return_token_ids", "min_tokens", "repetition_penalty"]
    session = opened(server, handle, told="running", refuses=refuses)
    assert session.generate(BATCH, 4).shape == (1, 7)
    assert session.deployed.notes["accepted_fields"] == "usage, running usage, timings, ignore_eos"


def test_prompts_are_token_ids_and_a_server_that_takes_none_must_be_named(server: Running, handle: ModelHandle) -> None:
    with pytest.raises(EndpointError, match="say prompts: text"):
        opened(server, handle, refuses=["tokens"])
    session = opened(server, handle, {"prompts": "text"}, refuses=["tokens"])
    assert session.generate(BATCH, 4).shape == (1, 7)
    assert session.deployed.notes["prompts"] == "text, completions"


SECRET = "sk-0123456789-secret"  # noqa: S105 -- made up


def test_the_key_is_sent_and_shown_nowhere(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_process(key=SECRET) as server:
        monkeypatch.setenv("MY_KEY", f"{SECRET}\n")
        options = {"api_key_env": "MY_KEY"}
        session = opened(server, handle, options, status=500, echoes_key=True)
        with pytest.raises(EndpointError, match=r"Bearer \*\*\*") as caught:
            session.generate(BATCH, 3)
        shown = f"{caught.value!r} {caught.value} {session.deployed} {session._options} {vars(session)}"
        assert SECRET not in shown
        monkeypatch.setenv("MY_KEY", "wrong-key")
        with pytest.raises(EndpointError) as caught:
            Endpoint(
                url=server.url, model="m", api_key_env="MY_KEY", extra_body={"behave": {"echoes_key": True}}
            ).prepare(handle, "cpu")
        assert caught.value.kind == "http-401"
        assert "wrong-key" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "two words", "line\nInjected: yes", "schlüssel"])
def test_what_can_be_no_key_is_refused_without_showing_it(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ModelError, match="MY_KEY") as caught:
        Endpoint(url="http://127.0.0.1:9", model="m", api_key_env="MY_KEY").prepare(handle, "cpu")
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://host/v1"},
        {"url": "http://user:word@host/v1"},
        {"url": "http://host/v1?key=1"},
        {"url": "http://host:99999/v1"},
        {"url": "http://host/v1/chat/completions"},
        {"url": "http://ho st/v1"},
        {"url": "host:8000"},
        {"api_key_env": "sk-not-a-name"},
        {"extra_body": {"max_tokens": 3}},
        {"extra_body": {"stream": False}},
        {"timeout_s": 0},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Endpoint(**{"url": "http://127.0.0.1:8000/v1", "model": "m", **options})
    assert "word@" not in str(json.dumps(caught.value.errors(include_input=False, include_context=False)))


def test_a_url_without_a_path_means_v1() -> None:
    assert Endpoint(url="http://host:8000/", model="m").url == "http://host:8000/v1"
    assert Endpoint(url="https://host/api/v3/", model="m").url == "https://host:443/api/v3"
    assert Endpoint(url="http://[::1]:80/v1", model="m").url == "http://[::1]:80/v1"


def test_a_server_that_is_not_there_is_an_error(handle: ModelHandle) -> None:
    with pytest.raises(EndpointError, match="can't be reached") as caught:
        Endpoint(url="http://127.0.0.1:9/v1", model="m").prepare(handle, "cpu")
    assert caught.value.kind == "connect"


def test_steps_do_not_reach_a_server(server: Running, handle: ModelHandle) -> None:
    stepped = handle.with_model(handle.model, claim=Claim(step="int8-dynamic"))
    with pytest.raises(UnsupportedError, match="weights of its own"):
        Endpoint(url=server.url, model="m").prepare(stepped, "cpu")


def test_logits_are_refused_with_what_to_do(server: Running, handle: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="a task that writes"):
        opened(server, handle)(BATCH)


def test_the_session_says_what_it_runs(server: Running, handle: ModelHandle) -> None:
    session: Session = opened(server, handle)
    assert isinstance(session, SaysWhatItRuns)
    assert isinstance(session, Writes)
    assert session.deployed.engine == "scripted 1.2.3"
    assert session.deployed.notes["server"] == "this machine (loopback)"
    assert session.kernels(BATCH) is None
    facts = facts_of(Endpoint(url=server.url, model="m"))
    assert facts.is_remote
    assert facts.heads == frozenset({"causal-lm"})


def test_an_error_survives_another_process() -> None:
    error = pickle.loads(pickle.dumps(failed("http-429", "busy", got="x")))  # noqa: S301 -- just made
    assert (error.kind, error.got, type(error)) == ("http-429", "x", EndpointError)


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


def test_samples_of_a_prompt_differ_and_come_again_with_their_seed(model_url: str, handle: ModelHandle) -> None:
    session = Endpoint(url=model_url, model="m").prepare(handle, "cpu")
    decoding = Decoding(max_new_tokens=12, temperature=1.0, top_p=0.95, num_samples=4, seed=3)
    first = session.write(BATCH, decoding)
    assert len({tuple(each.tokens) for each in first}) > 1
    assert session.write(BATCH, decoding) == first
