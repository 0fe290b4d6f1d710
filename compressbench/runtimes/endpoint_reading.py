"""What the events of a streamed completion say: how many tokens each brought, which, and how the text ended.

Servers differ, and an event is no token: one may bring several, or none that can be shown yet because a character isn't
whole. Tokens are counted by what the server says of them, in this order: their ids, their log-probabilities, a running
count. Where it only says how many there were in all, each event with text is taken for one token and the sum must agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compressbench.runtimes.endpoint_errors import failed

DONE = "[DONE]"
_ID_PREFIX = "token_id:"


@dataclass
class Reply:
    """One completion as far as it has come. `counts` has the tokens of each event that brought any.

    `ids` is None as soon as an event brought tokens without their ids. `num_tokens` is of all events. `is_told` says that
    every event's tokens were counted by the server, `total` is its count of all of them, once it gave one. `cached_tokens`
    are those of the prompt that the server had read before.
    """

    text: str = ""
    ids: list[int] | None = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    num_tokens: int = 0
    is_told: bool = True
    counted_by: str = ""
    total: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    finish: str = ""
    is_done: bool = False

    def take(self, data: str) -> int:
        """How many tokens this event brought. Raises EndpointError if it is no such event, or tells of an error."""
        if data.strip() == DONE:
            self.is_done = True
            return 0
        event = _event(data)
        choice = _choice(event)
        text, tokens = _text(choice), _tokens(choice, event)
        count, by = self._count(choice, event, tokens)
        self.text += text
        self.finish = str(choice.get("finish_reason") or "") or self.finish
        self._take_usage(event)
        if count is None:
            count = 1 if text else 0
            self.is_told = self.is_told and not count
        elif count:
            self.counted_by = by
        if not count:
            return 0
        if tokens is None:
            self.ids = None
        elif self.ids is not None:
            self.ids.extend(tokens)
        self.counts.append(count)
        self.num_tokens += count
        return count

    def _count(
        self, choice: Mapping[str, Any], event: Mapping[str, Any], tokens: Sequence[int] | None
    ) -> tuple[int | None, str]:
        if tokens is not None:
            return len(tokens), "token ids"
        log_probs = _entries(choice)
        if log_probs is not None:
            return len(log_probs), "log-probabilities"
        running = _running(event)
        if running is not None and choice and self.is_told:  # a count at the end would hide what came before
            return max(0, running - self.num_tokens), "a running count"
        return None, ""

    def _take_usage(self, event: Mapping[str, Any]) -> None:
        usage = event.get("usage")
        if isinstance(usage, Mapping):
            self.total = _whole(usage.get("completion_tokens"), self.total)
            self.prompt_tokens = _whole(usage.get("prompt_tokens"), self.prompt_tokens)
            details = usage.get("prompt_tokens_details")
            if isinstance(details, Mapping):
                self.cached_tokens = _whole(details.get("cached_tokens"), self.cached_tokens) or 0

    def check(self) -> None:
        """After the last event. Raises EndpointError if the stream has no end, or nobody can say how many tokens it had."""
        if not self.is_done:
            raise failed(
                "broken-stream", f"the stream ended without {DONE}", got=f"{self.num_tokens} tokens and no end"
            )
        if self.total is None and not self.is_told:
            raise failed(
                "uncounted",
                "the server doesn't say how many tokens its text has",
                do="An event is no token: it must give usage (stream_options.include_usage), log-probabilities or ids.",
            )
        if self.total is not None and self.total != self.num_tokens:
            self._disagree(self.total)

    def _disagree(self, total: int) -> None:
        if self.is_told:
            raise failed(
                "wrong-count",
                "the server counts other tokens than it sent",
                got=f"{total} in usage, {self.num_tokens} by {self.counted_by}",
            )
        raise failed(
            "uncounted",
            "an event of the server has more or less than one token, and it doesn't say how many",
            got=f"{total} tokens in {len(self.counts)} events with text",
            do="It must give log-probabilities, token ids, or a running count (continuous_usage_stats).",
        )


def _event(data: str) -> Mapping[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise failed("broken-stream", "an event of the stream isn't JSON", got=data) from error
    if not isinstance(event, Mapping):
        raise failed("broken-stream", "an event of the stream is no object", got=data)
    if event.get("error"):
        raise failed("broken-stream", "the server broke off with an error", got=str(event["error"]))
    return event


def _choice(event: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = event.get("choices") or [{}]
    if not isinstance(choices, list) or not isinstance(choices[0], Mapping):
        raise failed("broken-stream", "an event of the stream has no choices", got=str(event))
    return choices[0]


def _text(choice: Mapping[str, Any]) -> str:
    """Of a completion, or of a chat; reasoning that comes before an answer is text, too."""
    found = choice.get("text")
    if found is None:
        delta = choice.get("delta") or {}
        parts = [delta.get(name) for name in ("reasoning_content", "reasoning", "content")]
        found = "".join(part for part in parts if isinstance(part, str))
    return found if isinstance(found, str) else ""


def _tokens(choice: Mapping[str, Any], event: Mapping[str, Any]) -> list[int] | None:
    """Their ids, if they are given: `token_ids` (vLLM), `tokens` (llama.cpp), or within log-probabilities."""
    for found in (choice.get("token_ids"), choice.get("tokens"), event.get("tokens")):
        if isinstance(found, list) and all(type(each) is int for each in found):
            return found
    names = _entries(choice)
    if names and all(isinstance(each, str) and each.startswith(_ID_PREFIX) for each in names):
        numbers = [each.removeprefix(_ID_PREFIX) for each in names]
        return [int(each) for each in numbers] if all(map(str.isdecimal, numbers)) else None
    return None


def _entries(choice: Mapping[str, Any]) -> list[Any] | None:
    """One entry per token that the log-probabilities of this event are of."""
    found = choice.get("logprobs")
    if isinstance(found, Mapping):
        for name in ("content", "tokens"):
            if isinstance(found.get(name), list):
                return list(found[name])
    return None


def _running(event: Mapping[str, Any]) -> int | None:
    """How many tokens there have been until now: usage in every event (vLLM, SGLang), or timings (llama.cpp)."""
    usage, timings = event.get("usage"), event.get("timings")
    if isinstance(usage, Mapping):
        return _whole(usage.get("completion_tokens"), None)
    if isinstance(timings, Mapping):
        return _whole(timings.get("predicted_n"), None)
    return None


def _whole(found: Any, otherwise: int | None) -> int | None:
    return found if type(found) is int and found >= 0 else otherwise
