"""Capture and replay of a step, with a stand-in for torch.cuda that records what runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from compressbench.runtimes.cuda_graphs import GraphedStep
from compressbench.runtimes.static_decoding import StaticSteps, last_logits
from compressbench.testing import tiny_causal_lm


class FakeCuda:
    """A graph is the call that was captured; replaying it calls again and writes into the same output."""

    def __init__(self) -> None:
        self.events = list[str]()
        self.step: Callable[[], torch.Tensor] | None = None

    class Stream:
        def wait_stream(self, other: Any) -> None:
            assert isinstance(other, FakeCuda.Stream)

    def current_stream(self) -> Any:
        return FakeCuda.Stream()

    @contextmanager
    def stream(self, _: Any) -> Iterator[None]:
        self.events.append("side stream")
        yield

    def CUDAGraph(self) -> Any:  # noqa: N802 -- the name in torch.cuda
        return self

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        assert graph is self
        self.events.append("capture")
        yield

    def replay(self) -> None:
        assert self.step is not None
        self.events.append("replay")
        self.step()


def graphed(step: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], cuda: FakeCuda) -> GraphedStep:
    """`step` with an output of its own, as a captured one has."""
    output = list[torch.Tensor]()

    def run(*given: torch.Tensor) -> torch.Tensor:
        found = step(*given)
        output[:] = [output[0].copy_(found)] if output else [found.clone()]
        return output[0]

    cuda.step = lambda: run(*inputs)
    return GraphedStep(run, inputs, cuda)


def test_a_step_is_warmed_up_captured_once_and_replayed_on_the_tensors_it_was_captured_with() -> None:
    cuda, seen = FakeCuda(), list[int]()
    own = (torch.zeros(2), torch.zeros(2))

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append(a.data_ptr())
        return a + 2 * b

    call = graphed(step, own, cuda)
    assert cuda.events == ["side stream", "capture"]
    assert len(seen) == 4
    first = call(torch.tensor([1.0, 2.0]), own[1])
    assert first.tolist() == [1.0, 2.0]
    own[1].fill_(3)  # changed in place, as positions are
    second = call(torch.tensor([5.0, 6.0]), own[1])
    assert second.tolist() == [11.0, 12.0]
    assert second is first, "an output lies where the capture wrote it"
    assert cuda.events == ["side stream", "capture", "replay", "replay"]
    assert set(seen) == {own[0].data_ptr()}


def test_what_capturing_left_in_the_cache_changes_no_text() -> None:
    handle, cuda = tiny_causal_lm(num_layers=2, tied=False), FakeCuda()

    def captured(inputs: tuple[Any, ...]) -> Callable[..., torch.Tensor]:
        tokens, positions, mask, cache = inputs
        one_step: Any = last_logits
        call = graphed(lambda *given: one_step(handle.model, *given, cache), (tokens, positions, mask), cuda)
        return lambda *given: call(*given[:3])

    def plain(_: tuple[Any, ...]) -> Callable[..., torch.Tensor]:
        return lambda *given: last_logits(handle.model, *given)

    ids = torch.tensor([[0, 4, 6, 8], [5, 7, 9, 4]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    with torch.inference_mode():
        found = []
        for make in (captured, plain):
            steps = StaticSteps(handle.model, "cpu", make)
            steps.start(batch, 5)
            found.append([steps.step(torch.tensor([4, 7])).clone() for _ in range(3)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert cuda.events.count("replay") == 3


def test_caches_are_kept_for_a_few_sizes_and_have_room_for_every_position() -> None:
    handle, made = tiny_causal_lm(num_layers=1), list[tuple[int, ...]]()

    def plain(inputs: tuple[Any, ...]) -> Callable[..., torch.Tensor]:
        made.append(tuple(inputs[2].shape))
        return lambda *given: last_logits(handle.model, *given)

    steps = StaticSteps(handle.model, "cpu", plain)
    for length in (1, 64, 65, 128, 3):
        assert steps.room(1, length).mask.shape[1] >= length
    assert made == [(1, 64), (1, 128)]
    assert steps.cache_bytes(1, 10) == 2 * 2 * 16 * 64 * 4
    for rows in range(2, 6):
        steps.room(rows, 1)
    steps.room(1, 1)
    assert made[-1] == (1, 64), "the oldest was let go"
