from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent

from compressbench.models import kernels
from compressbench.models.int8_linear import Int8DynamicLinear, Int8WeightLinear, best_engine
from compressbench.models.kernels import FLOAT_PRODUCTS, trace_kernels
from compressbench.testing import FakeClock, FakeSession

CODES, SCALE = torch.arange(-32, 32, dtype=torch.int8).repeat(64, 1), torch.full((64,), 0.01)


class ModuleSession:
    """A session that runs one module on the tensor `x` of a batch."""

    device = "cpu"

    def __init__(self, module: nn.Module) -> None:
        self._module, self.num_synchronized = module, 0

    def __call__(self, batch: Any) -> Any:
        with torch.inference_mode():
            return self._module(batch["x"])

    def generate(self, batch: Any, num_tokens: int, on_token: Any = None) -> Any:
        raise NotImplementedError

    def synchronize(self) -> None:
        self.num_synchronized += 1

    def close(self) -> None:
        pass


def trace(module: nn.Module, x: torch.Tensor, **modules: nn.Module) -> Any:
    return trace_kernels(ModuleSession(module), {"x": x}, modules)


def test_every_operator_of_one_call_is_counted() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 64, bias=False))
    found = trace(model, torch.ones(2, 64))
    assert {name: found.counts[name] for name in ("aten::linear", "aten::addmm", "aten::mm", "aten::relu")} == {
        "aten::linear": 3, "aten::addmm": 2, "aten::mm": 1, "aten::relu": 1,
    }  # fmt: skip
    assert not any(name.startswith("compressbench") for name in found.counts)


def test_kernels_are_found_inside_of_the_module_that_ran_them() -> None:
    dynamic = Int8DynamicLinear(CODES, SCALE, None, engine=best_engine(), reduce_range=False)
    model = nn.Sequential(nn.Linear(64, 64), dynamic, nn.ReLU())
    found = trace(model, torch.ones(2, 64), all=model, plain=model[0], dynamic=dynamic)
    assert "quantized::linear_dynamic" in found.by_module["dynamic"]
    assert not found.by_module["dynamic"] & FLOAT_PRODUCTS
    assert found.by_module["plain"] & FLOAT_PRODUCTS
    assert "quantized::linear_dynamic" not in found.by_module["plain"]
    assert found.by_module["all"] >= found.by_module["plain"] | found.by_module["dynamic"] | {"aten::relu"}


def test_the_same_layer_runs_another_kernel_on_other_activations() -> None:
    layer = Int8WeightLinear(CODES, SCALE, None)
    in_float, in_half = (trace(layer, torch.ones(2, 64, dtype=t), it=layer) for t in (torch.float32, torch.bfloat16))
    assert in_float.by_module["it"] & FLOAT_PRODUCTS
    assert "aten::_weight_int8pack_mm" not in in_float.counts
    assert not in_half.by_module["it"] & FLOAT_PRODUCTS
    assert "aten::_weight_int8pack_mm" in in_half.by_module["it"]


def test_a_module_that_is_called_twice_keeps_the_kernels_of_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Int8WeightLinear(CODES, SCALE, None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide: torch.Tensor = self.inner(x)
            narrow: torch.Tensor = self.inner(x.bfloat16())
            return wide + narrow

    model = Twice()
    names = trace(model, torch.ones(2, 64), inner=model.inner).by_module["inner"]
    assert {"aten::mm", "aten::_weight_int8pack_mm"} <= names


def test_a_module_that_is_never_called_is_absent_and_one_that_runs_nothing_is_empty() -> None:
    found = trace(nn.Identity(), torch.ones(1), identity=nn.Linear(2, 2))
    assert found.by_module == {}
    identity = nn.Identity()
    assert trace(identity, torch.ones(1), identity=identity).by_module == {"identity": frozenset()}


def test_a_runtime_beside_pytorch_shows_no_kernels() -> None:
    found = trace_kernels(FakeSession(FakeClock(), [0.1]), {}, {"a": nn.Linear(2, 2)})
    assert (found.counts, found.by_module) == ({}, {})


def test_the_device_is_waited_for_and_the_hooks_are_gone_afterwards() -> None:
    layer = nn.Linear(64, 64)
    session = ModuleSession(layer)
    trace_kernels(session, {"x": torch.ones(1, 64)}, {"layer": layer})
    assert session.num_synchronized == 1
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_a_call_that_fails_leaves_no_hooks_behind() -> None:
    layer = nn.Linear(64, 64)
    with pytest.raises(RuntimeError):
        trace(layer, torch.ones(1, 3), layer=layer)
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_a_device_kernel_belongs_to_the_module_that_launched_it() -> None:
    def event(name: str, number: int, device: Any = DeviceType.CPU) -> FunctionEvent:
        return FunctionEvent(number, name, 0, number, number + 1, device_type=device)  # type: ignore[no-untyped-call]

    module, operator = event("compressbench.module:up", 1), event("aten::_int_mm", 2)
    operator.set_cpu_parent(module)  # type: ignore[no-untyped-call]
    operator.append_kernel("cutlass_i8_gemm", 0, 1)  # type: ignore[no-untyped-call]
    on_device = [event("cutlass_i8_gemm", 3, DeviceType.CUDA), event("compressbench.module:up", 4, DeviceType.CUDA)]
    found = kernels._by_module([module, operator, *on_device])
    assert found == {"up": frozenset({"aten::_int_mm", "cutlass_i8_gemm"})}


@pytest.mark.gpu
def test_int8_layers_run_integer_products_on_a_gpu() -> None:
    layer = Int8DynamicLinear(CODES.cuda(), SCALE.cuda(), None, engine="cuda", reduce_range=False)
    session = ModuleSession(layer)
    session.device = "cuda"
    found = trace_kernels(session, {"x": torch.ones(32, 64, device="cuda")}, {"layer": layer})
    assert "aten::_int_mm" in found.by_module["layer"]
    assert not found.by_module["layer"] & FLOAT_PRODUCTS
