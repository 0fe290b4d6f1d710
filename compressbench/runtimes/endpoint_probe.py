"""What a server understands beyond the common API, found by asking: who it is, and which optional fields it takes.

Servers refuse unknown fields (400, 422), ignore them, or do what they say; only the first can be seen by a probe. Whether
a length was forced and how tokens are counted is therefore judged again by every answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from compressbench.runtimes.endpoint_errors import EndpointError, failed
from compressbench.runtimes.endpoint_http import Http
from compressbench.runtimes.endpoint_requests import PATHS, Retries, Tally, complete

_USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
_RUNNING: dict[str, Any] = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
_OPTIONAL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("usage", _USAGE),
    ("running usage", _RUNNING),
    ("token ids", {"return_token_ids": True}),
    ("timings", {"timings_per_token": True}),
    # a server's own defaults, which vLLM takes from the model's files, would make it do other work than its rival
    ("no penalties", {"repetition_penalty": 1.0, "repeat_penalty": 1.0}),
)
# llama.cpp takes the first of these; vLLM the second, and reuses only what had the same
_UNSEEN: dict[str, Any] = {"cache_prompt": False, "cache_salt": "probe"}
_PER_REQUEST = {"ignore_eos", "min_tokens", "cache_salt"}
_LOG_PROBS: dict[str, dict[str, Any]] = {"completions": {"logprobs": 1}, "chat": {"logprobs": True}}
_NUM_PROBED = 2
_REFUSED = frozenset({"http-400", "http-422"})
# what some answer to a field that they know and can't serve
_CANT = frozenset({"http-500", "http-501"})


class Wishes(NamedTuple):
    """Which fields may force a length, and whether a server may reuse what it computed for a prompt it has seen."""

    ignore_eos: bool = True
    min_tokens: bool = True
    prefix_cache: bool = False

    def optional(self) -> list[tuple[str, dict[str, Any]]]:
        ours = [
            (not self.prefix_cache, "no prompt cache", _UNSEEN),
            (self.ignore_eos, "ignore_eos", {"ignore_eos": True}),
            (self.min_tokens, "min_tokens", {"min_tokens": _NUM_PROBED}),
        ]
        return [*_OPTIONAL, *((name, fields) for is_wanted, name, fields in ours if is_wanted)]


class Dialect(NamedTuple):
    """`fields` go into every request; `ignore_eos` and `min_tokens` say which of them a forced length may use, and
    `salts` whether a prompt can be made to look unseen.
    """

    engine: str
    fields: Mapping[str, Any]
    ignore_eos: bool
    min_tokens: bool
    salts: bool
    accepted: tuple[str, ...]
    counted_by: str

    def unseen(self) -> dict[str, Any]:
        """Fields for a prompt that comes again and is to be read again: the same few are timed over and over."""
        return {"cache_salt": secrets.token_hex(16)} if self.salts else {}

    def forced(self, num_tokens: int) -> dict[str, Any]:
        """Fields for a text of exactly so many tokens."""
        ignore = {"ignore_eos": True} if self.ignore_eos else {}
        least = {"min_tokens": num_tokens} if self.min_tokens else {}
        return {**ignore, **least, "max_tokens": num_tokens}


def probe(http: Http, api: str, body: Mapping[str, Any], wishes: Wishes, retries: Retries) -> Dialect:
    """Ask for two tokens with all optional fields, and where they are refused with one more at a time (9 requests more).

    `body` has the model and a prompt. Raises EndpointError if the server doesn't even answer without them.
    """
    asker = _Asker(http, PATHS[api], {**body, "stream": True, "max_tokens": _NUM_PROBED}, retries)
    accepted, fields, counted_by = asker.accepted(wishes.optional())
    if not counted_by:
        with_log_probs = {**fields, **_LOG_PROBS[api]}
        if by := asker.counted_by(with_log_probs, _REFUSED | _CANT):
            accepted, fields, counted_by = [*accepted, "log-probabilities"], with_log_probs, by
    kept = {name: value for name, value in fields.items() if name not in _PER_REQUEST}
    engine = engine_of(http, str(body.get("model", "")))
    return Dialect(
        engine,
        kept,
        ignore_eos="ignore_eos" in fields,
        min_tokens="min_tokens" in fields,
        salts="cache_salt" in fields,
        accepted=tuple(accepted),
        counted_by=counted_by,
    )


class _Asker:
    def __init__(self, http: Http, path: str, body: Mapping[str, Any], retries: Retries) -> None:
        self._http, self._path, self._body, self._retries = http, path, body, retries

    def accepted(self, wanted: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], dict[str, Any], str]:
        """Names and fields of what isn't refused, and how tokens are counted with them."""
        everything: dict[str, Any] = {}
        for _, more in wanted:
            everything |= more
        by = self.counted_by(everything)
        if by is not None:
            return [name for name, _ in wanted], everything, by
        counted_by = self._plainly()
        names: list[str] = []
        fields: dict[str, Any] = {}
        for name, more in wanted:
            by = self.counted_by({**fields, **more})
            if by is not None:
                names.append(name)
                fields |= more
                counted_by = by
        return names, fields, counted_by

    def counted_by(self, fields: Mapping[str, Any], refused: frozenset[str] = _REFUSED) -> str | None:
        """How tokens of an event are counted with these fields, "" if they aren't; None if the request is refused.

        Raises EndpointError for anything else that goes wrong.
        """
        try:
            return self._counted_by(fields)
        except EndpointError as error:
            if error.kind in refused:
                return None
            raise

    def _plainly(self) -> str:
        """The same without any field, where a refusal is an error."""
        try:
            return self._counted_by({})
        except EndpointError as error:
            if error.kind not in _REFUSED:
                raise
            raise failed(
                error.kind,
                "the server refuses a plain request",
                where=str(self._http.address),
                got=error.got,
                do="Check model and api; where it takes no token ids, say prompts: text.",
            ) from error

    def _counted_by(self, fields: Mapping[str, Any]) -> str:
        try:
            reply = complete(self._http, self._path, {**self._body, **fields}, self._retries, Tally())
        except EndpointError as error:
            if error.kind in {"uncounted", "wrong-count"}:  # said of the answer, when it matters
                return ""
            raise
        return reply.counted_by if reply.is_told else ""


def engine_of(http: Http, model: str) -> str:
    """The server's name and version in its own words, as far as it says them."""
    listed = _told(http, http.address.path + "/models")
    owner = ""
    if isinstance(listed, Mapping) and isinstance(listed.get("data"), list):
        entries = [each for each in listed["data"] if isinstance(each, Mapping)]
        mine = [each for each in entries if each.get("id") == model] or entries
        owner = str(mine[0].get("owned_by") or "") if mine else ""
    for path, name in (("/version", "version"), ("/props", "build_info"), ("/info", "version")):
        found = _told(http, path)
        if isinstance(found, Mapping) and isinstance(found.get(name), str):
            return f"{owner or 'server'} {found[name]}"[:100]
    return (owner or "a server that doesn't say which")[:100]


def _told(http: Http, path: str) -> Any:
    try:
        return http.get(path)[1]
    except EndpointError:
        return None
