"""A load test of an endpoint: several rates of Poisson arrivals one after the other, each judged by a service level."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from compressbench.core.errors import DataError
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec, content_hash
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.endpoint_load import Load, send_load
from compressbench.measure.goodput import RateResult, ServiceLevel, goodput, judge
from compressbench.measure.host_energy import host_energy
from compressbench.runtimes.endpoint import Endpoint
from compressbench.runtimes.endpoint_http import Http
from compressbench.runtimes.endpoint_probe import Dialect, Wishes, probe
from compressbench.runtimes.endpoint_requests import PATHS, Retries

Prompt = str | list[int]
_MAX_PROMPTS_BYTES = 256 * 2**20
_NUM_WARM = 3


class Asked(Spec):
    """What is sent. With `forces_length` every text must have `output_tokens` tokens, else at most so many."""

    rates_per_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    num_requests: int = Field(400, ge=20, le=1_000_000)
    output_tokens: int = Field(128, ge=1)
    forces_length: bool = True
    temperature: float = Field(0.0, ge=0)
    seed: int = 0
    device: str = "cpu"


class LoadReport(Spec):
    """`goodput_per_s` is the highest rate that kept the level, None if none did. `absent` has reasons.

    Unless `prefix_cache`, the server was asked to reuse nothing of a prompt that was sent before; whether it obeyed is in
    the results, if it says so.
    """

    url: str
    model: str
    engine: str
    api: str
    counted_by: str
    accepted_fields: tuple[str, ...]
    prefix_cache: bool
    is_here: bool
    asked: Asked
    level: ServiceLevel
    num_prompts: int
    prompts_hash: str
    times_sent: float
    goodput_per_s: float | None
    results: tuple[RateResult, ...]
    absent: Mapping[str, str]


def read_prompts(path: Path) -> list[Prompt]:
    """A prompt per line: of a .jsonl file its field `prompt`, a text or a list of token ids. Raises DataError."""
    try:
        if path.stat().st_size > _MAX_PROMPTS_BYTES:
            raise DataError(f"the file has more than {_MAX_PROMPTS_BYTES >> 20} MiB", where=str(path))
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the prompts can't be read", where=str(path), got=str(error)) from error
    found: list[Prompt] = [*lines]
    if path.suffix == ".jsonl":
        found = [_prompt(path, number, line) for number, line in enumerate(lines, 1)]
    if not found:
        raise DataError("the file has no prompt", where=str(path), do="Write one on each line.")
    return found


def _prompt(path: Path, number: int, line: str) -> Prompt:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError("the line is no object with a prompt", where=f"{path}:{number}") from error
    is_ids = isinstance(prompt, list) and prompt and all(type(each) is int and each >= 0 for each in prompt)
    if not (is_ids or (isinstance(prompt, str) and prompt)):
        raise DataError("a prompt is a text or a list of token ids", where=f"{path}:{number}", got=str(prompt)[:80])
    return prompt  # type: ignore[no-any-return]


def load_test(
    endpoint: Endpoint, prompts: Sequence[Prompt], asked: Asked, level: ServiceLevel, say: Callable[[str], None]
) -> LoadReport:
    """Try the rates from the lowest to the highest, on the same prompts and the same pattern of arrivals.

    Raises EndpointError if the server doesn't answer a probe. What it does under load is a result, whatever it is.
    """
    http = endpoint.client()
    try:
        dialect = probe(
            http,
            endpoint.api,
            endpoint.body(prompts[0]),
            Wishes(
                endpoint.ignore_eos and asked.forces_length,
                endpoint.min_tokens and asked.forces_length,
                endpoint.prefix_cache,
            ),
            Retries(endpoint.max_retries),
        )
        return _Run(http, endpoint, prompts, asked, dialect).report(level, say)
    finally:
        http.close()


class _Run:
    def __init__(
        self, http: Http, endpoint: Endpoint, prompts: Sequence[Prompt], asked: Asked, dialect: Dialect
    ) -> None:
        self._http, self._endpoint, self._prompts = http, endpoint, prompts
        self._asked, self._dialect = asked, dialect

    def report(self, level: ServiceLevel, say: Callable[[str], None]) -> LoadReport:
        asked, results = self._asked, list[RateResult]()
        unit = unit_arrivals(asked.num_requests, asked.seed)
        self._send([0] * _NUM_WARM)
        with host_energy(asked.device, is_here=self._endpoint.is_here) as energy:
            for rate in sorted(set(asked.rates_per_s)):
                say(
                    f"{rate:g} requests per second: {asked.num_requests} of them in about {asked.num_requests / rate:.0f} s"
                )
                readings: list[Reading] = []
                with energy.around(readings):
                    load = self._send(arrivals_ns(unit, rate))
                found = judge(load, rate, level)
                results.append(found.model_copy(update={"readings": tuple(readings)}))
            absent = {"energy": energy.absent} if energy.absent else {}
        return self._as_report(level, results, absent)

    def _send(self, arrivals: Sequence[int]) -> Load:
        asked, prompts = self._asked, self._prompts
        length = (
            self._dialect.forced(asked.output_tokens) if asked.forces_length else {"max_tokens": asked.output_tokens}
        )
        more = {**self._dialect.fields, **length, "temperature": asked.temperature}
        bodies = [
            {**self._endpoint.body(prompts[at % len(prompts)]), **more, **self._dialect.unseen(), **self._seeded(at)}
            for at in range(len(arrivals))
        ]
        exact = asked.output_tokens if asked.forces_length else None
        return send_load(self._http, PATHS[self._endpoint.api], bodies, arrivals, exact)

    def _seeded(self, at: int) -> dict[str, int]:
        return {"seed": self._asked.seed + at} if self._asked.temperature else {}

    def _as_report(self, level: ServiceLevel, results: Sequence[RateResult], absent: Mapping[str, str]) -> LoadReport:
        endpoint, best = self._endpoint, goodput(results)
        return LoadReport(
            url=endpoint.url,
            model=endpoint.model,
            engine=self._dialect.engine,
            api=endpoint.api,
            counted_by=self._dialect.counted_by,
            accepted_fields=self._dialect.accepted,
            prefix_cache=endpoint.prefix_cache,
            is_here=endpoint.is_here,
            asked=self._asked,
            level=level,
            num_prompts=len(self._prompts),
            prompts_hash=content_hash(list(self._prompts)),
            times_sent=len(results) * self._asked.num_requests / len(self._prompts),
            goodput_per_s=None if best is None else best.rate_per_s,
            results=tuple(results),
            absent=absent,
        )
