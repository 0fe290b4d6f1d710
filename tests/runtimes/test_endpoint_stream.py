"""Bytes into events and events into tokens, without a network."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from compressbench.runtimes.endpoint_errors import EndpointError
from compressbench.runtimes.endpoint_reading import Reply
from compressbench.runtimes.endpoint_stream import EventParser

TEXTS = ["one", "zwei\nlines", "dräi 🎭", "", "[DONE]"]


def as_bytes(texts: list[str], end: str) -> bytes:
    made = ""
    for text in texts:
        made += f": a comment{end}event: x{end}" + "".join(f"data: {line}{end}" for line in text.split("\n")) + end
    return made.encode()


def parsed(pieces: list[bytes]) -> list[str]:
    parser = EventParser()
    found = [event for piece in pieces for event in parser.feed(piece)]
    parser.finish()
    return found


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("seed", range(20))
def test_events_are_the_same_however_their_bytes_are_split(end: str, seed: int) -> None:
    whole, draw = as_bytes(TEXTS, end), random.Random(seed)
    cuts = sorted(draw.choices(range(len(whole) + 1), k=draw.randint(0, 40)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert parsed(pieces) == TEXTS
    assert parsed([whole[at : at + 1] for at in range(len(whole))]) == TEXTS


def test_a_byte_order_mark_and_a_missing_space_are_read_over() -> None:
    assert parsed([b"\xef\xbb", b"\xbfdata:x\n\n"]) == ["x"]
    assert parsed([b"database: no\ndata\n\nretry: 3\n\n"]) == [""]


@pytest.mark.parametrize("rest", [b"data: {", b"data: whole line\n", b": comm"])
def test_a_stream_that_ends_within_an_event_was_cut(rest: bytes) -> None:
    with pytest.raises(EndpointError, match="cut within an event") as caught:
        parsed([b"data: x\n\n", rest])
    assert caught.value.kind == "broken-stream"


def fed(piece: bytes) -> list[str]:
    """The same piece a hundred times, to a parser that takes a thousand bytes."""
    parser = EventParser(max_bytes=1000)
    return [event for _ in range(100) for event in parser.feed(piece)]


def test_a_line_without_end_is_bounded() -> None:
    with pytest.raises(EndpointError, match="more than 1000 bytes"):
        fed(b"x" * 100)


def test_an_event_of_many_lines_is_bounded() -> None:
    with pytest.raises(EndpointError, match="more than 1000 bytes"):
        fed(b"data: " + b"x" * 100 + b"\n")


def test_comments_without_end_are_no_event_that_grows() -> None:
    assert fed(b": " + b"x" * 100 + b"\n\n") == []


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(EndpointError, match="isn't UTF-8"):
        parsed([b"data: \xff\n\n"])


def reply_of(*events: dict[str, Any] | str) -> tuple[Reply, list[int]]:
    reply = Reply()
    return reply, [reply.take(each if isinstance(each, str) else json.dumps(each)) for each in events]


def choice(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, **more}]}


def usage(total: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": total}}


def test_tokens_are_counted_by_their_ids_though_nothing_can_be_shown_yet() -> None:
    reply, counts = reply_of(choice("", token_ids=[7]), choice("é!", token_ids=[8, 9]), usage(3), "[DONE]")
    reply.check()
    assert (counts, reply.ids, reply.text, reply.counted_by) == ([1, 2, 0, 0], [7, 8, 9], "é!", "token ids")


def test_tokens_are_counted_by_log_probabilities() -> None:
    reply, counts = reply_of(choice("ab", logprobs={"tokens": ["a", "b"]}), usage(2), "[DONE]")
    reply.check()
    assert counts[0] == 2
    assert reply.ids is None
    chat = {"choices": [{"delta": {"content": "ab"}, "logprobs": {"content": [{"token": "a"}, {"token": "b"}]}}]}
    assert reply_of(chat)[1] == [2]


def test_ids_within_log_probabilities_are_read() -> None:
    reply, _ = reply_of(choice("ab", logprobs={"tokens": ["token_id:12", "token_id:5"]}))
    assert reply.ids == [12, 5]


@pytest.mark.parametrize("field", ["usage", "timings"])
def test_tokens_are_counted_by_a_running_count(field: str) -> None:
    def count(n: int) -> dict[str, Any]:
        return {field: {"completion_tokens" if field == "usage" else "predicted_n": n}}

    reply, counts = reply_of(
        {**choice("a"), **count(1)}, {**choice(""), **count(2)}, {**choice("bcd"), **count(5)}, usage(5), "[DONE]"
    )
    reply.check()
    assert counts[:3] == [1, 1, 3]


def test_events_that_agree_with_the_count_at_the_end_are_tokens() -> None:
    reply, counts = reply_of(choice("a"), choice("b"), usage(2), "[DONE]")
    reply.check()
    assert counts[:2] == [1, 1]


@pytest.mark.parametrize("last", [usage(5), {**choice("b"), **usage(5), "choices": [{"text": "b"}]}])
def test_events_are_never_taken_for_tokens_where_the_count_at_the_end_says_otherwise(last: dict[str, Any]) -> None:
    reply, _ = reply_of(choice("a"), choice("a"), last, "[DONE]")
    with pytest.raises(EndpointError) as caught:
        reply.check()
    assert caught.value.kind == "uncounted"


def test_events_are_never_taken_for_tokens_where_nobody_counts() -> None:
    reply, _ = reply_of(choice("a"), "[DONE]")
    with pytest.raises(EndpointError, match="doesn't say how many tokens") as caught:
        reply.check()
    assert caught.value.kind == "uncounted"


def test_a_count_that_disagrees_with_the_tokens_sent_is_an_error() -> None:
    reply, _ = reply_of(choice("a", token_ids=[1]), usage(2), "[DONE]")
    with pytest.raises(EndpointError, match="counts other tokens") as caught:
        reply.check()
    assert caught.value.kind == "wrong-count"


@pytest.mark.parametrize(
    "event", ["{", "[]", "3", '{"choices": 3}', '{"choices": [3]}', "[" * 100_000, '{"error": "x"}']
)
def test_an_event_that_is_none_is_a_broken_stream(event: str) -> None:
    with pytest.raises(EndpointError) as caught:
        Reply().take(event)
    assert caught.value.kind == "broken-stream"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [{"text": 3}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"text": "a", "token_ids": ["x"]}], "usage": {"completion_tokens": "many"}},
        {"choices": [{"text": "a", "logprobs": {"tokens": "x"}}], "usage": {"completion_tokens": -4}},
        {"choices": None, "usage": [], "timings": 3},
    ],
)
def test_fields_of_the_wrong_kind_are_as_good_as_none(event: dict[str, Any]) -> None:
    assert Reply().take(json.dumps(event)) in {0, 1}
