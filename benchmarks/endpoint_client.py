"""What stands between a socket and a stamp: tokens as a server process sent them against the stamps of the client, by one
clock. One stream as a session reads it, and many at once as a load test does. Usage: python benchmarks/endpoint_client.py
"""

from __future__ import annotations

import os
from typing import Any

from compressbench.core.quantiles import summarize_quantiles
from compressbench.measure.endpoint_load import Load, send_load
from compressbench.runtimes.endpoint_address import parse_address
from compressbench.runtimes.endpoint_http import Http
from compressbench.runtimes.endpoint_requests import Retries, Tally, complete
from compressbench.testing.endpoint import Running, server_process
from compressbench.testing.endpoint_answers import Sent

_GAP_S, _NUM_TOKENS = 0.02, 64


def body(mark: str, **behave: Any) -> dict[str, Any]:
    fields = {"mark": mark, "first_s": 0.05, "gaps_s": [_GAP_S], **behave}
    return {"model": "m", "prompt": "x", "max_tokens": _NUM_TOKENS, "return_token_ids": True, "behave": fields}


def show(name: str, errors_ns: list[int]) -> None:
    found = summarize_quantiles([each / 1e6 for each in errors_ns], [0.5, 0.9, 0.99])
    told = ", ".join(
        f"{p} {each.value:.3f}" for p, each in zip(("p50", "p90", "p99"), found, strict=True) if each.value
    )
    print(f"{name}: stamp - sent in ms: {told}, largest {max(errors_ns) / 1e6:.3f} (n = {len(errors_ns)})")


def one_stream(server: Running, http: Http) -> None:
    stamps: list[int] = []
    for number in range(10):
        complete(
            http, "/completions", body(f"one {number}"), Retries(), Tally(), lambda count: stamps.append(http.clock())
        )
    sent = [each for entry in server.log() if entry.mark.startswith("one ") for each in entry.sent_ns]
    show("one stream", [ours - theirs for ours, theirs in zip(stamps, sent, strict=True)])


def many_streams(server: Running, http: Http, num_streams: int) -> None:
    bodies = [body(f"many {num_streams} {number}") for number in range(num_streams)]
    load = send_load(http, "/completions", bodies, [0] * num_streams)
    log = {entry.mark: entry for entry in server.log()}
    show(f"{num_streams} streams", errors(load, [log[each["behave"]["mark"]] for each in bodies]))
    print(f"  client: {100 * load.cpu_share:.0f} % of a core, {num_streams / _GAP_S:.0f} tokens/s")


def errors(load: Load, sent: list[Sent]) -> list[int]:
    assert not any(each.failure for each in load.outcomes)
    return [
        load.begun_ns + ours - theirs
        for outcome, entry in zip(load.outcomes, sent, strict=True)
        for ours, theirs in zip(outcome.token_ns, entry.sent_ns, strict=True)
    ]


def main() -> None:
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    with server_process() as server:
        http = Http(parse_address(server.url), 120.0)
        one_stream(server, http)
        for num_streams in (8, 32, 128):
            many_streams(server, http, num_streams)
        http.close()


if __name__ == "__main__":
    main()
