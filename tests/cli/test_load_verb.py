"""`compressbench load` as it is called: exit codes, what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compressbench.cli.main import call
from compressbench.core.errors import MeterError
from compressbench.meters.energy import Energy
from compressbench.testing.endpoint import Running, server_process


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with server_process() as running:
        yield running


@pytest.fixture(autouse=True)
def no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening an estimate takes 2 s, and says nothing here."""

    def fail(*_: Any) -> Any:
        raise MeterError("no counter here")

    monkeypatch.setattr(Energy, "open", fail)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"prompt {number}" for number in range(8)))
    return str(path)


def arguments(url: str, prompts: str, *more: str, limit: str = "30") -> list[str]:
    limits = ["--ttft-limit", limit, "--tpot-limit", limit, "--goal", "0.5"]
    return ["load", url, "-m", "m", "-p", prompts, "-r", "200", "-n", "30", "--output-tokens", "3", *limits, *more]


def test_a_kept_rate_is_the_goodput(server: Running, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(arguments(server.url, prompts)) == 0
    out = capsys.readouterr().out
    assert "Goodput: 200 requests per second" in out
    assert "100.0 %" in out
    assert "higher rates were not tried" in out
    assert "Each of 8 prompts was sent 3.75 times; the server was asked to reuse nothing" in " ".join(out.split())


def test_no_kept_rate_is_exit_code_6(server: Running, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    slow = ["--extra-body", '{"behave": {"status": 500, "times": 1000000, "mark": "cli"}}']
    assert call(arguments(server.url, prompts, *slow)) == 1, "a server that refuses a probe can't be tested"
    capsys.readouterr()
    code = call(
        arguments(server.url, prompts, "--extra-body", '{"behave": {"gaps_s": [0.2], "first_s": 0.2}}', limit="0.1")
    )
    assert code in {6, 4}
    out = capsys.readouterr().out
    assert ("no rate that was tried" if code == 6 else "too busy to be the clients") in out


def test_json_says_the_same(server: Running, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(arguments(server.url, prompts, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["goodput_per_s"] == 200
    assert found["results"][0]["num_good"] == 30


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--extra-body", "{"], "no JSON"),
        (["--extra-body", '{"stream": 1}'], "runtime's own"),
        (["--rate", "0"], "rates_per_s"),
        (["--goal", "2"], "goal"),
        (["--requests", "3"], "num_requests"),
        (["--api-key-env", "SK_THAT_IS_NOT_SET"], "not set"),
    ],
)
def test_wrong_options_are_exit_code_2(
    server: Running, prompts: str, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert call(arguments(server.url, prompts, *more)) == 2
    assert words in capsys.readouterr().err


def test_a_name_that_would_colour_the_terminal_is_harmless(
    server: Running, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call([*arguments(server.url, prompts), "-m", "\x1b[31mred[bold]"])
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert "[bold]" in out
