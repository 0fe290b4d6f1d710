"""Servers that break, refuse, redirect or repeat a key, and options that can't be."""

from __future__ import annotations

import http.client
import json
import pickle
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
from endpoint_parts import BATCH, opened
from pydantic import ValidationError

from compressbench.core.deploying import SaysWhatItRuns, facts_of
from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.core.protocols import Claim, Session, Writes
from compressbench.measure.calls import caller
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.endpoint import Endpoint
from compressbench.runtimes.endpoint_address import parse_address
from compressbench.runtimes.endpoint_errors import EndpointError, failed
from compressbench.runtimes.endpoint_http import Http
from compressbench.testing.endpoint import Running, server_process


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with server_process() as running:
        yield running


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


def test_certificates_are_read_once_and_not_for_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    read, context = list[bool](), ssl.create_default_context()

    def reading() -> ssl.SSLContext:
        read.append(True)
        return context

    monkeypatch.setattr(ssl, "create_default_context", reading)
    client = Http(parse_address("https://127.0.0.1:9/v1"), 10.0)
    for _ in range(3):
        with pytest.raises(EndpointError, match="can't be reached"):
            client.stream("/completions", {})
    assert len(read) == 1


def test_a_connection_that_breaks_while_a_request_is_sent_is_closed(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = list[http.client.HTTPConnection]()

    def request(connection: http.client.HTTPConnection, *_: Any, **__: Any) -> None:
        broken.append(connection)
        raise BrokenPipeError

    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    with pytest.raises(EndpointError) as caught:
        Http(parse_address(server.url), 10.0).stream("/completions", {})
    assert caught.value.kind == "died"
    assert [each.sock for each in broken] == [None]


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
