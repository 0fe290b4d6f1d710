from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressbench.core.errors import MissingDependencyError, ModelError, UnsupportedError
from compressbench.models import torchao_linear
from compressbench.models.torchao_linear import TorchaoLinear, torchao

pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")

CONFIGS = [
    "Int8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "IntxWeightOnlyConfig",
    "Float8WeightOnlyConfig",
    "PrototypeInt4WeightOnlyConfig",
]
DTYPES = [torch.float32, torch.bfloat16]
INT4: torch.dtype = vars(torch)["int4"]  # has no type stub


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def config_named(name: str) -> Any:
    module = "prototype.quantization.int4" if name.startswith("Prototype") else "quantization"
    return getattr(torchao(module), name)(**({"set_inductor_config": False} if not name.startswith("Intx") else {}))


def quantized(name: str, dtype: torch.dtype = torch.float32, bias: bool = True) -> tuple[nn.Linear, TorchaoLinear]:
    """The library's own module and ours of the same weights."""
    linear = nn.Linear(128, 64, bias=bias, dtype=dtype)
    linear.weight = nn.Parameter(drawn(64, 128).to(dtype), requires_grad=False)
    model = nn.Sequential(linear)
    torchao().quantize_(model, config_named(name))
    module: Any = model[0]
    return module, TorchaoLinear(module.weight, module.bias)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_are_those_of_torchao_and_of_the_dequantized_weights(name: str, dtype: torch.dtype) -> None:
    module, layer = quantized(name, dtype)
    x = drawn(5, 128, 1).to(dtype)
    with torch.no_grad():
        assert torch.equal(layer(x), module(x))
        expected = x.double() @ layer.dequantized().double().t() + module.bias.double()
    error = float((layer(x).double() - expected).norm() / expected.norm())
    assert error < (0.02 if "Dynamic" in name else 5e-3 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_are_restored_from_plain_tensors_and_json_alone(name: str, dtype: torch.dtype) -> None:
    _, layer = quantized(name, dtype)
    x = drawn(5, 128, 1).to(dtype)
    expected = layer(x)
    tensors = {part: tensor.clone() for part, tensor in layer.stored_tensors().items()}
    assert all(type(tensor) is torch.Tensor and tensor.is_contiguous() for tensor in tensors.values())
    layout = json.loads(json.dumps(dict(layer.layout())))
    again = TorchaoLinear.restore(layout, tensors)
    assert torch.equal(again(x), expected)
    assert again.layout() == layer.layout()
    duplicate = copy.deepcopy(layer)
    for tensor in layer.stored_tensors().values():
        tensor.zero_()
    assert torch.equal(duplicate(x), expected)
    assert torch.equal(duplicate.to("cpu")(x), expected)


def test_bytes_are_counted_as_they_are_stored_whatever_the_configuration_is_called() -> None:
    n = 64 * 128
    bytes_of = {
        name: sum(tensor.nbytes for part, tensor in quantized(name)[1].stored_tensors().items() if "qdata" in part)
        for name in CONFIGS
    }
    assert bytes_of["Int8WeightOnlyConfig"] == bytes_of["Float8WeightOnlyConfig"] == n
    assert bytes_of["PrototypeInt4WeightOnlyConfig"] == n // 2
    model = nn.Sequential(nn.Linear(128, 64))
    torchao().quantize_(model, torchao().IntxWeightOnlyConfig(weight_dtype=INT4))
    weight: Any = model[0].weight
    assert TorchaoLinear(weight, None).stored_tensors()["weight.qdata"].nbytes == n  # not n // 2
    layer = quantized("Int8WeightOnlyConfig")[1]
    assert sum(tensor.nbytes for tensor in layer.stored_tensors().values()) == n + 4 * 64 + 64 + 4 * 64


def test_a_fresh_process_gives_the_same_bits(tmp_path: Path) -> None:
    x = drawn(5, 128, 1)
    layers = {name: quantized(name)[1] for name in CONFIGS}
    for name, layer in layers.items():
        save_file(layer.stored_tensors(), tmp_path / f"{name}.safetensors")
        (tmp_path / f"{name}.json").write_text(json.dumps(dict(layer.layout())))
    save_file({"x": x, **{name: layer(x) for name, layer in layers.items()}}, tmp_path / "expected.safetensors")
    script = (
        "import json, sys, torch; from pathlib import Path; from safetensors.torch import load_file\n"
        "from compressbench.models.torchao_linear import TorchaoLinear\n"
        "folder = Path(sys.argv[1]); expected = load_file(folder / 'expected.safetensors')\n"
        "for path in folder.glob('*.json'):\n"
        "    tensors = load_file(path.with_suffix('.safetensors'))\n"
        "    layer = TorchaoLinear.restore(json.loads(path.read_text()), tensors)\n"
        "    assert torch.equal(layer(expected['x']), expected[path.stem]), path.stem\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "path",
    ["os:system", "torch:Tensor", "builtins:eval", "torchao_evil:Thing", "torchao.quantization:quantize_",
     "torchao.quantization:nothing", "torchao.nothing:Thing", "torchao.quantization:Float8Tensor.__init__"],
)  # fmt: skip
def test_nothing_but_classes_of_torchao_is_looked_up(path: str) -> None:
    _, layer = quantized("Int8WeightOnlyConfig")
    data = json.loads(str(layer.layout()["weight"]))
    data["tensor"] = path
    with pytest.raises(ModelError, match="no class of the installed torchao"):
        TorchaoLinear.restore({"weight": json.dumps(data), "cpu_capability": None}, layer.stored_tensors())


def test_another_processor_s_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opaque, plain = quantized("PrototypeInt4WeightOnlyConfig")[1], quantized("Int8WeightOnlyConfig")[1]
    layouts = opaque.layout(), plain.layout()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
    with pytest.raises(ModelError, match="packed for a CPU with"):
        TorchaoLinear.restore(layouts[0], opaque.stored_tensors())
    TorchaoLinear.restore(layouts[1], plain.stored_tensors())


def test_values_without_a_form_on_disk_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="a function of torchao can't be stored"):
        torchao_linear._take_apart({"a": drawn}, "weight", {})
    for value in ({"a": (1, [2.5, None, True])}, INT4, torch.device("cpu"), "text"):
        data = json.loads(json.dumps(torchao_linear._take_apart(value, "weight", {})))
        assert torchao_linear._put_together(data, {}) == value


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingDependencyError, match="pip install torchao"):
        torchao_linear.torchao.__wrapped__()
