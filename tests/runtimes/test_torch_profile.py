"""Names of kernels with the types that they read, and without where this torch doesn't say them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compressbench.runtimes.torch_profile import profiled


def test_an_operator_is_named_with_the_types_of_its_operands() -> None:
    matrix = torch.ones(3, 3, dtype=torch.bfloat16)
    assert profiled(lambda: (matrix @ matrix, None)[1], "cpu")["aten::mm bfloat16"] == 1


def test_a_torch_whose_events_have_no_types_gives_the_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def profile(**_: Any) -> Iterator[Any]:
        yield SimpleNamespace(events=lambda: [SimpleNamespace(name="aten::mm"), SimpleNamespace(name="aten::mm")])

    monkeypatch.setattr(torch.profiler, "profile", profile)
    assert profiled(lambda: None, "cpu") == {"aten::mm": 2}
