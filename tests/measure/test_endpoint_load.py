"""Poisson load on a server process: what it did by its own log, and every failure counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compressbench.core.errors import DataError, MeterError
from compressbench.core.reading import Reading
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.endpoint_load import Load, send_load
from compressbench.measure.goodput import ServiceLevel
from compressbench.measure.host_energy import ELSEWHERE, host_energy
from compressbench.measure.load_test import Asked, load_test, read_prompts
from compressbench.meters.energy import Energy
from compressbench.records.idle_power import OF_THIS_PROCESS
from compressbench.runtimes.endpoint import Endpoint
from compressbench.runtimes.endpoint_address import is_loopback, parse_address
from compressbench.runtimes.endpoint_http import Http
from compressbench.testing.endpoint import Running, server_process
from compressbench.testing.fakes import ReplayInstrument


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with server_process() as running:
        yield running


def sent(server: Running, behaviours: list[dict[str, Any]], rate: float, tokens: int | None = 4, **more: Any) -> Load:
    http = Http(parse_address(server.url), **{"timeout_s": 10.0, **more})
    bodies = [
        {"model": "m", "prompt": "x", "max_tokens": 4, "return_token_ids": True, "behave": each} for each in behaviours
    ]
    try:
        return send_load(http, "/completions", bodies, arrivals_ns(unit_arrivals(len(bodies), 1), rate), tokens)
    finally:
        http.close()


def test_requests_come_when_the_schedule_says_and_wait_for_no_other(server: Running) -> None:
    """The server takes 0.5 s for each and gets 20 within 0.2 s: one after the other they would take 10 s."""
    behaviours: list[dict[str, Any]] = [
        {"mark": f"open {number}", "first_s": 0.2, "gaps_s": [0.1]} for number in range(20)
    ]
    load = sent(server, behaviours, 100.0)
    log = {entry.mark: entry for entry in server.log()}
    assert load.max_in_flight == 20
    assert [each.scheduled_ns for each in load.outcomes] == arrivals_ns(unit_arrivals(20, 1), 100.0)
    for outcome, behave in zip(load.outcomes, behaviours, strict=True):
        entry = log[behave["mark"]]
        assert outcome.failure == ""
        assert outcome.num_tokens == 4
        assert load.begun_ns + outcome.sent_ns <= entry.received_ns, "it can't be read before it was sent"
        for ours, theirs in zip(outcome.token_ns, entry.sent_ns, strict=True):
            assert load.begun_ns + ours >= theirs, "nor stamped before the server sent it"
        assert outcome.sent_ns >= outcome.scheduled_ns
        assert outcome.ttft_s is not None
        assert outcome.ttft_s >= 0.2


def test_times_agree_with_the_servers_log(server: Running) -> None:
    """In the middle of the requests: a median shrugs off what a busy machine does to some of them."""
    behaviours: list[dict[str, Any]] = [
        {"mark": f"times {number}", "first_s": 0.2, "gaps_s": [0.1]} for number in range(21)
    ]
    load = sent(server, behaviours, 20.0)
    log = {entry.mark: entry for entry in server.log()}
    ttft, tpot = [], []
    for outcome, behave in zip(load.outcomes, behaviours, strict=True):
        entry = log[behave["mark"]]
        assert outcome.ttft_s is not None
        assert outcome.tpot_s is not None
        ttft.append((outcome.token_ns[0] - outcome.sent_ns) / (entry.sent_ns[0] - entry.received_ns))
        tpot.append(outcome.tpot_s * 3e9 / (entry.sent_ns[-1] - entry.sent_ns[0]))
    assert sorted(ttft)[10] == pytest.approx(1.0, rel=0.02)
    assert sorted(tpot)[10] == pytest.approx(1.0, rel=0.02)


FAULTS: dict[str, dict[str, Any]] = {
    "": {},
    "http-429": {"status": 429, "retry_after": "1"},
    "http-500": {"status": 500},
    "redirect": {"status": 302, "location": "http://elsewhere.invalid/"},
    "died": {"fault": "close"},
    "timeout": {"fault": "stall"},
    "wrong-length": {"ends_at": 3},
    "wrong-count": {"off_by": 1},
    "uncounted": {"told": "nothing"},
}


def test_every_failure_is_a_result_with_its_kind(server: Running) -> None:
    broken = ["cut-line", "garbage", "no-done", "bad-utf8", "error", "huge-line"]
    wanted = [*FAULTS, *["broken-stream"] * len(broken)]
    behaviours = [*FAULTS.values(), *({"fault": fault} for fault in broken)]
    load = sent(server, [{**each, "mark": f"f{at}"} for at, each in enumerate(behaviours)], 100.0, timeout_s=2.0)
    assert [each.failure for each in load.outcomes] == wanted
    assert all(bool(each.said) == bool(each.failure) for each in load.outcomes)
    died = load.outcomes[wanted.index("died")]
    assert len(died.token_ns) == 2, "what it had brought until then is kept"


def test_a_busy_server_is_never_asked_twice(server: Running) -> None:
    load = sent(server, [{"status": 429, "times": 1, "mark": "once", "retry_after": "0"}], 10.0)
    assert load.outcomes[0].failure == "http-429"


def test_tokens_that_come_several_at_a_time_are_counted_by_the_sum(server: Running) -> None:
    load = sent(server, [{"told": "usage", "per_event": 2, "gaps_s": [0.1]}], 10.0)
    (outcome,) = load.outcomes
    assert (outcome.failure, outcome.num_tokens, outcome.knows_gaps) == ("", 4, False)
    assert outcome.tpot_s is not None
    assert outcome.tpot_s >= 0.1 / 3 * 0.9


def test_a_server_that_dies_fails_what_is_in_flight_and_what_comes_after() -> None:
    with server_process() as server:
        behaviours = [{"first_s": 0.3, "mark": str(at)} for at in range(10)]
        behaviours[3] = {"fault": "die"}
        load = sent(server, behaviours, 50.0)
    assert len(load.outcomes) == 10
    assert {each.failure for each in load.outcomes} <= {"died", "connect", ""}
    assert sum(bool(each.failure) for each in load.outcomes) >= 9, "none of 0.3 s was done when it died"


def no_meter(*_: Any) -> Any:
    raise MeterError("no counter here")


def test_a_load_test_reports_each_rate_and_why_there_is_no_energy(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Energy, "open", no_meter)
    endpoint = Endpoint(url=server.url, model="m", extra_body={"behave": {"gaps_s": [0.01]}})
    said: list[str] = []
    asked = Asked(rates_per_s=(100.0, 50.0), num_requests=40, output_tokens=3)
    level = ServiceLevel(ttft_s=30.0, tpot_s=5.0, goal=0.5)
    report = load_test(endpoint, ["a", [1, 2]], asked, level, said.append)
    assert [each.rate_per_s for each in report.results] == [50.0, 100.0]
    assert all(each.num_requests == 40 and not each.failures for each in report.results)
    assert (report.engine, report.counted_by, report.times_sent) == ("scripted 1.2.3", "token ids", 40.0)
    assert len(said) == 2
    assert report.absent == {"energy": "no counter here"}
    assert type(report).model_validate_json(report.model_dump_json()) == report


def test_a_meter_of_the_machine_is_read_around_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    instrument = ReplayInstrument([{"energy_j": 40.0}, "the counter was reset", {"energy_j": 41.0}])
    monkeypatch.setattr(Energy, "open", lambda self, device: instrument)
    first: list[Reading] = []
    with host_energy("cpu", is_here=True) as energy:
        with energy.around(first):
            pass
        assert [(each.value, each.boundary) for each in first] == [(40.0, "host: device")]
        with energy.around(first):
            pass
        assert len(first) == 1
        assert energy.absent == "the counter was reset"
        with energy.around(first):
            pass
        assert (len(first), energy.absent) == (2, "the counter was reset")  # one rate still has no joules
    assert instrument.calls[-1] == "close"


def test_an_estimate_of_this_process_says_nothing_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    instrument = ReplayInstrument([{"energy_j": 40.0}])
    how = instrument.provenances["energy_j"].model_copy(update={"boundary": f"cpu ({OF_THIS_PROCESS})"})
    instrument.provenances["energy_j"] = how
    monkeypatch.setattr(Energy, "open", lambda self, device: instrument)
    with host_energy("cpu", is_here=True) as energy:
        assert "another process" in energy.absent


def test_no_meter_here_sees_a_server_elsewhere() -> None:
    assert not is_loopback(parse_address("http://10.0.0.3:8000/v1"))
    assert not is_loopback(parse_address("http://gpu-box/v1"))
    assert is_loopback(parse_address("http://[::1]:8000/v1"))
    with host_energy("cpu", is_here=False) as energy:
        assert energy.absent == ELSEWHERE


def test_prompts_are_lines_or_objects(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\u2028lines\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"prompt": [3, 4]}\n')
    assert read_prompts(tmp_path / "a.txt") == ["one", "two\u2028lines"]
    assert read_prompts(tmp_path / "a.jsonl") == ["one", [3, 4]]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"prompt": 3}', '{"prompt": []}', '{"prompt": [1.5]}', '{"text": "x"}', ""]
)
def test_prompts_that_are_none_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError):
        read_prompts(tmp_path / "a.jsonl")


def test_prompts_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "latin").write_bytes(b"\xe9\n")
    with pytest.raises(DataError, match="can't be read"):
        read_prompts(tmp_path / "latin")


def test_json_of_a_report_has_no_key(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Energy, "open", no_meter)
    monkeypatch.setenv("LOAD_KEY", "sk-not-for-files")
    endpoint = Endpoint(url=server.url, model="m", api_key_env="LOAD_KEY")
    asked = Asked(rates_per_s=(200.0,), num_requests=20, output_tokens=2)
    report = load_test(endpoint, ["a"], asked, ServiceLevel(ttft_s=9, tpot_s=9), lambda text: None)
    assert "sk-not-for-files" not in json.dumps(report.model_dump(mode="json"))
