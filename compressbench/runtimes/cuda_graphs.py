"""A step of decoding captured in a CUDA graph: launched as one, with its inputs copied to where they were captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_WARM_UPS = 3


class GraphedStep:
    """Replays `step` on the tensors that it was captured with (arXiv:2011.12524 has the idea of whole-graph launches).

    Capturing runs the step a few times, on a stream of its own as CUDA asks for, so whatever it changes has to be set
    back afterwards. Outputs lie where the capture wrote them: read them before the next call. `cuda` has the members of
    torch.cuda that are used, for tests without a device.
    """

    def __init__(self, step: Callable[..., Any], inputs: tuple[Any, ...], cuda: Any = None) -> None:
        if cuda is None:
            from torch import cuda
        self._inputs = inputs
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(_WARM_UPS):
                step(*inputs)
        cuda.current_stream().wait_stream(side)
        self._graph = cuda.CUDAGraph()
        with cuda.graph(self._graph):
            self._output = step(*inputs)

    def __call__(self, *inputs: Any) -> Any:
        for own, given in zip(self._inputs, inputs, strict=True):
            if given is not own:
                own.copy_(given)
        self._graph.replay()
        return self._output
