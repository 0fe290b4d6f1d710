"""What NNCF makes of a graph of OpenVINO: int8 after training, or weights alone in int8 or int4."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from compressbench.core.calibration import Calibration
from compressbench.core.deploying import Note
from compressbench.core.errors import CompressbenchError, UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle
from compressbench.models.quiet_logs import errors_only

Feed = Callable[[Batch], Mapping[str, Any]]


class Quantization(Spec):
    """Options of NNCF, with its own defaults for transformers except the number of samples and int4's groups.

    benchmarks/openvino_speed.py measures what they cost on the embedded MiniLM and Banking77.
    """

    quantize: Literal["none", "int8", "int8-weights", "int4-weights"] = Field(
        "none", description="int8: weights and activations, calibrated; the others: weights alone"
    )
    calibration: Calibration = Field(Calibration(), description="samples for int8")
    preset: Literal["mixed", "performance"] = Field(
        "mixed", description="mixed: asymmetric activations; performance: symmetric ones"
    )
    smooth_quant: float | None = Field(
        0.95, ge=0, le=1, description="how far SmoothQuant moves outliers into the weights; null: not at all"
    )
    fast_bias_correction: bool = True
    ignore: tuple[str, ...] = Field((), description="regular expressions: parts of the graph's names left as they are")
    group_size: int = Field(64, ge=-1, description="weights that share a scale in int4; -1: a whole row")
    symmetric: bool = Field(False, description="weights alone: no zero points")


def quantize(graph: Any, options: Quantization, handle: ModelHandle, feed: Feed) -> tuple[Any, dict[str, Note]]:
    """The graph as asked, and notes. `feed` turns a calibration batch into the graph's inputs.

    Raises UnsupportedError if calibration samples are needed and there is no source of them, or NNCF refuses.
    """
    if options.quantize == "none":
        return graph, {}
    with _quiet_nncf():
        try:
            if options.quantize == "int8":
                return _post_training(graph, options, handle, feed)
            return _weights_alone(graph, options)
        except CompressbenchError:
            raise
        except Exception as error:  # NNCF raises errors of its own and of OpenVINO for graphs that it can't handle
            first = str(error).strip().split("\n")[0]
            raise UnsupportedError(
                f"NNCF can't make {options.quantize} of this model", got=f"{type(error).__name__}: {first[:200]}"
            ) from error


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """Its progress bars and messages go to standard output, where `--json` prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        for kind in (DeprecationWarning, FutureWarning, UserWarning, RuntimeWarning):
            warnings.simplefilter("ignore", kind)
        import nncf  # noqa: F401  # its logger is made at import

        with errors_only("nncf"):
            yield


def _post_training(graph: Any, options: Quantization, handle: ModelHandle, feed: Feed) -> tuple[Any, dict[str, Note]]:
    import nncf

    if handle.supplies.calibration is None:
        raise UnsupportedError("int8 in OpenVINO needs calibration samples, and was given none")
    samples = handle.supplies.calibration(options.calibration)
    alpha = -1.0 if options.smooth_quant is None else options.smooth_quant
    made = nncf.quantize(
        graph,
        nncf.Dataset(samples.batches, feed),
        preset=nncf.QuantizationPreset(options.preset),
        subset_size=len(samples.batches),
        fast_bias_correction=options.fast_bias_correction,
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=_ignored(graph, options.ignore),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=alpha, convolution=-1.0)
        ),
    )
    return made, {"calibration": samples.describe()}


def _weights_alone(graph: Any, options: Quantization) -> tuple[Any, dict[str, Note]]:
    import nncf
    from nncf.quantization.advanced_parameters import GroupSizeFallbackMode

    kind = "sym" if options.symmetric else "asym"
    more: dict[str, Any] = {}
    if options.quantize == "int4-weights":
        fallback = nncf.AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.IGNORE)
        more = {"group_size": options.group_size, "ratio": 1.0, "advanced_parameters": fallback}
    mode = nncf.CompressWeightsMode(f"{options.quantize.removesuffix('-weights')}_{kind}")
    made = nncf.compress_weights(graph, mode=mode, ignored_scope=_ignored(graph, options.ignore), **more)
    return made, {}


def _ignored(graph: Any, patterns: tuple[str, ...]) -> Any:
    """Raises UnsupportedError for a pattern that nothing has: a typing error would quantize what should be left."""
    import nncf

    names = [node.get_friendly_name() for node in graph.get_ops()]
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise UnsupportedError("nothing in the graph has this name", where="ignore", got=pattern)
    found = [
        node.get_friendly_name()
        for node in graph.get_ops()
        if node.get_type_name() in _HEAVY and any(re.search(pattern, node.get_friendly_name()) for pattern in patterns)
    ]
    return nncf.IgnoredScope(names=found, validate=False)


_HEAVY = {"MatMul", "Convolution", "ScaledDotProductAttention", "Add", "Multiply", "Gather"}
