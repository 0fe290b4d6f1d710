"""`compressbench load`: how many requests per second a server answers in time."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments

if TYPE_CHECKING:
    from compressbench.measure.goodput import ServiceLevel
    from compressbench.measure.load_test import Asked, LoadReport
    from compressbench.runtimes.endpoint import Endpoint


class Api(StrEnum):
    completions = "completions"
    chat = "chat"


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


Url = Annotated[str, typer.Argument(metavar="URL", help="E.g. http://127.0.0.1:8000/v1.", show_default=False)]
Model = Annotated[str, typer.Option("--model", "-m", help="The model's name there.", show_default=False)]
Prompts = Annotated[
    Path,
    typer.Option("--prompts", "-p", help="A prompt per line, or .jsonl with a field prompt.", show_default=False),
]
Rate = Annotated[
    list[float], typer.Option("--rate", "-r", help="Requests per second; give several.", show_default=False)
]
TtftLimit = Annotated[
    float, typer.Option("--ttft-limit", help="Seconds to the first token, from its arrival.", show_default=False)
]
TpotLimit = Annotated[
    float, typer.Option("--tpot-limit", help="Seconds per token after the first.", show_default=False)
]
Goal = Annotated[float, typer.Option("--goal", help="Share of requests that must keep both limits.")]
Requests = Annotated[int, typer.Option("--requests", "-n", help="Requests at each rate.")]
OutputTokens = Annotated[int, typer.Option("--output-tokens", help="Tokens of each text.")]
NaturalEnd = Annotated[
    bool, typer.Option("--natural-end", help="Let texts end by themselves; --output-tokens is their most.")
]
Temperature = Annotated[float, typer.Option("--temperature")]
WhichApi = Annotated[Api, typer.Option("--api")]
ApiKeyEnv = Annotated[
    str, typer.Option("--api-key-env", help="Environment variable that holds the key.", show_default=False)
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds of one request; then it has failed.")]
ExtraBody = Annotated[
    str, typer.Option("--extra-body", help="More fields of every request, as JSON.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", help="Of arrivals, and of sampled texts.")]
PrefixCache = Annotated[
    bool, typer.Option("--prefix-cache", help="Let the server reuse what it computed for a prompt.")
]
WhichDevice = Annotated[Device, typer.Option("--device", help="Whose joules, if the server is here.")]


def load(
    url: Url,
    model: Model,
    prompts: Prompts,
    rate: Rate,
    ttft_limit: TtftLimit,
    tpot_limit: TpotLimit,
    goal: Goal = 0.9,
    requests: Requests = 400,
    output_tokens: OutputTokens = 128,
    natural_end: NaturalEnd = False,
    temperature: Temperature = 0.0,
    api: WhichApi = Api.completions,
    api_key_env: ApiKeyEnv = "",
    timeout: Timeout = 120.0,
    extra_body: ExtraBody = "{}",
    seed: Seed = 0,
    prefix_cache: PrefixCache = False,
    device: WhichDevice = Device.cpu,
    as_json: arguments.AsJson = False,
) -> None:
    """Send random arrivals to a server and say how many it answers in time (goodput), failures included.

    Exit 6 if no rate kept the limits, 4 if this machine was too busy to be the clients.
    """
    from compressbench.cli.load_print import print_report
    from compressbench.measure.load_test import load_test, read_prompts

    options = {"api": api.value, "api_key_env": api_key_env, "timeout_s": timeout, "extra_body": _json(extra_body)}
    options["prefix_cache"] = prefix_cache
    asked = {
        "rates_per_s": tuple(rate),
        "num_requests": requests,
        "output_tokens": output_tokens,
        "forces_length": not natural_end,
        "temperature": temperature,
        "seed": seed,
        "device": device.value,
    }
    endpoint, plan, level = _checked(
        {"url": url, "model": model, **options}, asked, {"ttft_s": ttft_limit, "tpot_s": tpot_limit, "goal": goal}
    )
    report = load_test(endpoint, read_prompts(prompts), plan, level, lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        print_report(report)
    _leave(report)


def _json(text: str) -> object:
    import json

    from compressbench.core.errors import InputError

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("--extra-body is no JSON", got=text[:80]) from error


def _checked(
    endpoint: dict[str, object], asked: dict[str, object], level: dict[str, object]
) -> tuple[Endpoint, Asked, ServiceLevel]:
    from pydantic import ValidationError

    from compressbench.core.errors import InputError
    from compressbench.measure.goodput import ServiceLevel
    from compressbench.measure.load_test import Asked
    from compressbench.runtimes.endpoint import Endpoint

    try:
        return (
            Endpoint.model_validate(endpoint),
            Asked.model_validate(asked),
            ServiceLevel.model_validate(level),
        )
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise InputError("an option can't be used", got="; ".join(problems)) from None


def _leave(report: LoadReport) -> None:
    if report.goodput_per_s is not None:
        return
    raise typer.Exit(4 if all(each.reason for each in report.results) else 6)
