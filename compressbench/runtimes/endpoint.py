"""`endpoint`: a model behind a URL that speaks OpenAI's API, such as vLLM, SGLang, llama.cpp's server or TGI.

The server has weights of its own: what is measured is what it answers. Tokens are stamped here as they arrive, so that a
time to first token has the network, the server's queue and its HTTP in it. From a server's
sending to a stamp it took 0.06 to 0.3 ms at the median on two busy cores (benchmarks/endpoint_client.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from compressbench.core.deploying import Deployed, KernelUse, RuntimeFacts
from compressbench.core.errors import DataError, InputError, UnsupportedError
from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.endpoint_address import is_loopback, key_from, parse_address
from compressbench.runtimes.endpoint_http import Http
from compressbench.runtimes.endpoint_probe import Dialect, Wishes, probe
from compressbench.runtimes.endpoint_reading import Reply
from compressbench.runtimes.endpoint_requests import PATHS, Retries, Tally, complete
from compressbench.runtimes.endpoint_rows import Positions, at_once, seed_of

if TYPE_CHECKING:
    import torch

OURS = frozenset(
    {
        "model", "prompt", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "min_tokens",
        "ignore_eos", "n", "best_of", "echo", "temperature", "top_p", "top_k", "seed", "stop", "logprobs",
        "return_token_ids", "cache_prompt", "cache_salt",
    }
)  # fmt: skip
UNKNOWN = -1
"""Stands for a token whose id nobody gave."""


class Endpoint(Spec):
    """A model at a server, which must run the recipe's model: its tokenizer makes the prompts.

    A server that can't force a length gives texts of other lengths, and such a cell fails. `weights` is what the server
    says to run in your words, for the record: nothing checks it.
    """

    requires: ClassVar[tuple[str, ...]] = ()

    url: str = Field(description="up to what the API's paths follow, e.g. http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1, max_length=200, description="the model's name at the server")
    api: Literal["completions", "chat"] = Field(
        "completions", description="chat: the server's template is put around text"
    )
    prompts: Literal["tokens", "text"] = Field("tokens", description="text where the server takes no token ids")
    api_key_env: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", description="environment variable with the key"
    )
    timeout_s: float = Field(120.0, gt=0, le=86_400, description="of one request, to its last token")
    max_retries: int = Field(3, ge=0, le=20, description="when the server is busy (429, 503)")
    ignore_eos: bool = Field(True, description="force lengths by this field, if the server takes it")
    min_tokens: bool = Field(True, description="force lengths by this field, if the server takes it")
    prefix_cache: bool = Field(False, description="let the server reuse what it computed for a prompt it has seen")
    max_in_flight: int = Field(16, ge=1, le=1024, description="requests at once when texts are written")
    weights: str = Field("not stated", max_length=100, description="what the server computes in, in your words")
    extra_body: dict[str, JsonValue] = Field(default={}, description="more fields of every request; it is recorded")

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, given: str) -> str:
        try:
            return str(parse_address(given))
        except InputError as error:
            raise ValueError(str(error)) from error

    @field_validator("extra_body")
    @classmethod
    def _leaves_ours_alone(cls, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(OURS & given.keys()):
            raise ValueError(f"these fields are the runtime's own: {', '.join(taken)}")
        return given

    @property
    def facts(self) -> RuntimeFacts:
        return RuntimeFacts(heads=frozenset({"causal-lm"}), is_exact=False, is_remote=True)

    @property
    def local_port(self) -> int | None:
        """Where the server listens if it is on this machine, so that its CPU time can be told from other processes'."""
        address = parse_address(self.url)
        return address.port if is_loopback(address) else None

    @property
    def is_here(self) -> bool:
        """Whether the server runs on this machine, so that its meters see what it does."""
        return self.local_port is not None

    def client(self) -> Http:
        """Connections to the server, to be closed. Raises ModelError if the key isn't where it should be."""
        return Http(parse_address(self.url), self.timeout_s, key_from(self.api_key_env))

    def body(self, prompt: str | list[int]) -> dict[str, Any]:
        """Of a request for a stream. Raises DataError for a chat of token ids."""
        body: dict[str, Any] = {**self.extra_body, "model": self.model, "stream": True}
        if self.api == "completions":
            return {**body, "prompt": prompt}
        if not isinstance(prompt, str):
            raise DataError("a chat takes no token ids", do="Give texts, or use the API completions.")
        return {**body, "messages": [{"role": "user", "content": prompt}]}

    def prepare(self, handle: ModelHandle, device: str) -> EndpointSession:
        """Ask the server what it understands. Raises EndpointError if it doesn't answer, UnsupportedError after steps."""
        if handle.head != "causal-lm":
            raise UnsupportedError("an endpoint completes texts", got=handle.head, do="Use another runtime.")
        if handle.claims:
            raise UnsupportedError(
                "a server runs weights of its own, which no step of a recipe changes",
                got=", ".join(claim.step for claim in handle.claims),
                do="Leave compress out, and say what the server runs in the runtime's option weights.",
            )
        return EndpointSession(self, handle, device)


class EndpointSession:
    """Requests to one server. Every row of a batch is a request of its own, all of them sent at once."""

    def __init__(self, options: Endpoint, handle: ModelHandle, device: str) -> None:
        self.device, self._options, self._tokenizer = device, options, handle.tokenizer
        self._http = options.client()
        weakref.finalize(self, self._http.close)  # a session that nobody closes must not leave sockets behind
        self._retries, self._tally = Retries(options.max_retries), Tally()
        self._prompt_tokens: set[tuple[int, int]] = set()
        self._ids_from = "the server"
        self._dialect: Dialect = probe(
            self._http,
            options.api,
            self._body([_first_id(handle.tokenizer)]),
            Wishes(options.ignore_eos, options.min_tokens, options.prefix_cache),
            self._retries,
        )

    def __call__(self, batch: Batch) -> Any:
        raise UnsupportedError(
            "a server gives texts, and this needs the logits of every token",
            do="Use a task that writes, such as generation, and set workload.output_tokens: the log-probabilities that "
            "servers give are of some tokens only.",
        )

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        """Greedy, by `num_tokens` tokens if the server can be made to. An id that isn't known is -1.

        A position is there when all rows have it. The ids of a server that gives none are those of its text, encoded here.
        """
        prompts = prompts_of(batch)
        positions = Positions(len(prompts), num_tokens, on_token)
        length = self._dialect.forced(num_tokens)
        bodies = [{**self._request(prompt), **self._dialect.unseen(), "temperature": 0, **length} for prompt in prompts]
        replies = at_once([self._asking(body, positions.told(row)) for row, body in enumerate(bodies)], len(prompts))
        for prompt, reply in zip(prompts, replies, strict=True):
            self._compare_prompt(prompt, reply)
        return self._tensor(batch, replies, num_tokens)

    def write(self, batch: Batch, decoding: Decoding) -> list[Written]:
        """Every text is a request of its own, its seed made from the seed, the prompt and its number.

        A server's sampler is its own: two engines draw other texts from the same seed.
        """
        texts = [(prompt, number) for prompt in prompts_of(batch) for number in range(decoding.num_samples)]
        asks = [self._asking(self._writing(prompt, decoding, number)) for prompt, number in texts]
        replies = at_once(asks, self._options.max_in_flight)
        for (prompt, _), reply in zip(texts, replies, strict=True):
            self._compare_prompt(prompt, reply)
        return [Written(self._ids(reply), reply.finish == "stop") for reply in replies]

    def synchronize(self) -> None:
        """An answer that was read is done."""

    def close(self) -> None:
        self._http.close()

    @property
    def deployed(self) -> Deployed:
        dialect, tally = self._dialect, self._tally
        notes = {
            "server": "this machine (loopback)" if self._options.is_here else "elsewhere",
            "prompts": f"{self._options.prompts}, {self._options.api}",
            "accepted_fields": ", ".join(dialect.accepted) or "none",
            "tokens_counted_by": dialect.counted_by or "the sum of usage, one for each event",
            "token_ids_from": self._ids_from,
            "num_requests": tally.requests,
            "num_retries": tally.retries,
            "waited_for_retries_s": round(tally.waited_s, 3),
        }
        if tally.events:
            notes["tokens_per_event"] = round(tally.tokens / tally.events, 3)
        if tally.cached_tokens:
            notes["cached_prompt_tokens"] = tally.cached_tokens
        if self._prompt_tokens:
            ours, theirs = min(self._prompt_tokens)
            notes["prompt_tokens_differ"] = f"the server counted {theirs} where {ours} were meant"
        return Deployed(engine=dialect.engine, precision=self._options.weights, notes=notes)

    def kernels(self, batch: Batch, output_tokens: int | None = None) -> KernelUse | None:
        """Nobody says."""
        return None

    def _body(self, prompt: list[int]) -> dict[str, Any]:
        options = self._options
        if options.api == "completions" and options.prompts == "tokens":
            return options.body(prompt)
        return options.body(self._tokenizer.decode(prompt, skip_special_tokens=True))

    def _request(self, prompt: list[int]) -> dict[str, Any]:
        return {**self._body(prompt), **self._dialect.fields}

    def _writing(self, prompt: list[int], decoding: Decoding, number: int) -> dict[str, Any]:
        body = {**self._request(prompt), "max_tokens": decoding.max_new_tokens, "temperature": decoding.temperature}
        if decoding.until:
            body["stop"] = list(decoding.until)
        if decoding.temperature:
            body |= {"top_p": decoding.top_p, "seed": seed_of(decoding.seed, prompt, number)}
            if decoding.top_k is not None:
                body["top_k"] = decoding.top_k
        return body

    def _asking(self, body: Mapping[str, Any], on_tokens: Callable[[int], None] | None = None) -> Callable[[], Reply]:
        path = PATHS[self._options.api]
        return lambda: complete(self._http, path, body, self._retries, self._tally, on_tokens)

    def _compare_prompt(self, prompt: list[int], reply: Reply) -> None:
        """The server must have read the tokens that were meant; a chat's template adds its own."""
        if self._options.api == "completions" and reply.prompt_tokens not in {None, len(prompt)}:
            assert reply.prompt_tokens is not None  # noqa: S101 -- for the type
            self._prompt_tokens.add((len(prompt), reply.prompt_tokens))

    def _ids(self, reply: Reply) -> list[int]:
        if reply.ids is not None:
            return reply.ids
        self._ids_from = "its text, encoded here"
        return list(self._tokenizer(reply.text, add_special_tokens=False, verbose=False)["input_ids"])

    def _tensor(self, batch: Batch, replies: list[Reply], num_tokens: int) -> torch.Tensor:
        """As wide as its rows have tokens; where they don't all have `num_tokens`, as wide as the first that has others."""
        import torch

        width = next((each.num_tokens for each in replies if each.num_tokens != num_tokens), num_tokens)
        rows = [(self._ids(reply)[:width] + [UNKNOWN] * width)[:width] for reply in replies]
        return torch.cat([batch["input_ids"].cpu(), torch.tensor(rows, dtype=torch.int64).reshape(-1, width)], dim=1)


def prompts_of(batch: Batch) -> list[list[int]]:
    """Token ids of every row, without its padding."""
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    if mask is None:
        return list(ids.tolist())
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


def _first_id(tokenizer: Any) -> int:
    """A token for a probe: that which begins texts, or ends them, or any."""
    for name in ("bos_token_id", "eos_token_id"):
        if isinstance(getattr(tokenizer, name, None), int):
            return int(getattr(tokenizer, name))
    return 0
