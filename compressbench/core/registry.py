"""Names to classes, without importing anything until a name is used.

A word in a recipe is a file name: `use: depth-pruning` is methods/pruning/depth_pruning.py. Other packages add words
through the entry-point groups `compressbench.methods | runtimes | tasks | meters | layers`; a plug-in can't replace a
built-in. Layers aren't words of a recipe: an artefact's manifest names them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, NamedTuple

from compressbench.core.errors import MissingDependencyError, UnknownNameError
from compressbench.core.names import did_you_mean


class Resolved(NamedTuple):
    """A use of a name: the object that does it, and its options with every default.

    `kind` is the registered name where `name` is a ready-made one for it with options, and "" where they are the same.
    """

    name: str
    value: Any
    options: dict[str, Any]
    kind: str = ""

    @property
    def registered_name(self) -> str:
        return self.kind or self.name

    def as_data(self) -> dict[str, Any]:
        """What it does, whatever it is called."""
        return {"use": self.registered_name, **self.options}


class Registry:
    """An explicit table `name -> "module:attribute"` plus the entry points of one group."""

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind, self.group, self._builtin = kind, f"compressbench.{kind}s", dict(table)

    @cached_property
    def table(self) -> dict[str, str]:
        """Every known name and where it lives; built-ins win over plug-ins of the same name."""
        plugins = {point.name: point.value for point in entry_points(group=self.group)}
        return {**plugins, **self._builtin}

    def names(self) -> list[str]:
        return sorted(self.table)

    def is_builtin(self, name: str) -> bool:
        return name in self._builtin

    def resolve(self, name: str, *, also: Iterable[str] = ()) -> Any:
        """The class or function behind `name`. `also` are other words that would have been right in its place.

        Raises UnknownNameError with the nearest known name, and MissingDependencyError if its module can't be imported.
        """
        if name not in self.table:
            raise UnknownNameError(f"unknown {self.kind} '{name}'", do=did_you_mean(name, [*self.table, *also]))
        module, _, attribute = self.table[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever the module of a plug-in raises becomes an error that names it
            raise MissingDependencyError(
                f"the {self.kind} '{name}' can't be imported from {self.table[name]}",
                got=f"{type(error).__name__}: {error}",
                do="Install what it needs, or remove the package that offers it.",
            ) from error


def resolve_use(table: Registry, use: Mapping[str, Any]) -> Resolved:
    """A use as `Resolved.as_data` wrote it: the name under `use`, and all options. Raises what `resolve` raises."""
    options = {key: value for key, value in use.items() if key != "use"}
    return Resolved(use["use"], table.resolve(use["use"])(**options), options)


def missing_distributions(names: Iterable[str]) -> list[str]:
    """Those of the distributions (PyPI names) that aren't installed. Imports none of them."""
    return [name for name in names if installed_version(name) is None]


def installed_version(distribution: str) -> str | None:
    """Of a distribution (PyPI name), without importing it; None if it isn't installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


methods = Registry(
    "method",
    {
        "cast": "compressbench.methods.quantization.cast:Cast",
        "int8-dynamic": "compressbench.methods.quantization.int8_dynamic:Int8Dynamic",
        "int8-weight-only": "compressbench.methods.quantization.int8_weight_only:Int8WeightOnly",
        "int4-weight-only": "compressbench.methods.quantization.int4_weight_only:Int4WeightOnly",
        "rtn": "compressbench.methods.quantization.rtn:Rtn",
        "gptq": "compressbench.methods.quantization.gptq:Gptq",
        "awq": "compressbench.methods.quantization.awq:Awq",
        "hqq": "compressbench.methods.quantization.hqq:Hqq",
        "smoothquant": "compressbench.methods.quantization.smoothquant:SmoothQuant",
        "fp8": "compressbench.methods.quantization.fp8:Fp8",
        "bnb-int8": "compressbench.methods.quantization.bnb_int8:BnbInt8",
        "bnb-nf4": "compressbench.methods.quantization.bnb_nf4:BnbNf4",
        "bnb-fp4": "compressbench.methods.quantization.bnb_fp4:BnbFp4",
        "torchao": "compressbench.methods.quantization.torchao:TorchAo",
        "transformers": "compressbench.methods.quantization.transformers:Transformers",
        "embedding-quantization": "compressbench.methods.quantization.embedding_quantization:EmbeddingQuantization",
        "gptqmodel": "compressbench.methods.quantization.gptqmodel:GptqModel",
        "llm-compressor": "compressbench.methods.quantization.llm_compressor:LlmCompressor",
        "auto-round": "compressbench.methods.quantization.auto_round:AutoRound",
        "magnitude": "compressbench.methods.pruning.magnitude:Magnitude",
        "wanda": "compressbench.methods.pruning.wanda:Wanda",
        "sparsegpt": "compressbench.methods.pruning.sparsegpt:SparseGpt",
        "semi-structured": "compressbench.methods.pruning.semi_structured:SemiStructured",
        "width-pruning": "compressbench.methods.pruning.width_pruning:WidthPruning",
        "depth-pruning": "compressbench.methods.pruning.depth_pruning:DepthPruning",
        "low-rank": "compressbench.methods.pruning.low_rank:LowRank",
        "row-pruning": "compressbench.methods.pruning.row_pruning:RowPruning",
        "rare-row-pruning": "compressbench.methods.pruning.rare_row_pruning:RareRowPruning",
        "logit-distillation": "compressbench.methods.distillation.logit_distillation:LogitDistillation",
        "hidden-distillation": "compressbench.methods.distillation.hidden_distillation:HiddenDistillation",
        "sequence-distillation": "compressbench.methods.distillation.sequence_distillation:SequenceDistillation",
        "gkd": "compressbench.methods.distillation.gkd:Gkd",
        "recover": "compressbench.methods.distillation.recover:Recover",
    },
)
runtimes = Registry(
    "runtime",
    {
        "torch": "compressbench.runtimes.torch_eager:TorchEager",
        "onnxruntime": "compressbench.runtimes.onnxruntime:OnnxRuntime",
        "openvino": "compressbench.runtimes.openvino:OpenVino",
        "torch-compile": "compressbench.runtimes.torch_compile:TorchCompile",
        "endpoint": "compressbench.runtimes.endpoint:Endpoint",
    },
)
tasks = Registry(
    "task",
    {
        "text-classification": "compressbench.tasks.text_classification:TextClassification",
        "perplexity": "compressbench.tasks.perplexity:Perplexity",
        "multiple-choice": "compressbench.tasks.multiple_choice:MultipleChoice",
        "last-word": "compressbench.tasks.last_word:LastWord",
        "generation": "compressbench.tasks.generation:Generation",
        "lm-eval": "compressbench.tasks.lm_eval:LmEval",
        "sentence-similarity": "compressbench.tasks.sentence_similarity:SentenceSimilarity",
        "image-classification": "compressbench.tasks.image_classification:ImageClassification",
        "speech-recognition": "compressbench.tasks.speech_recognition:SpeechRecognition",
        "click-prediction": "compressbench.tasks.click_prediction:ClickPrediction",
    },
)
meters = Registry(
    "meter",
    {
        "latency": "compressbench.meters.latency:Latency",
        "memory": "compressbench.meters.memory:Memory",
        "energy": "compressbench.meters.energy:Energy",
        "energy-amdsmi": "compressbench.meters.energy_amdsmi:EnergyAmdsmi",
        "energy-codecarbon": "compressbench.meters.energy_codecarbon:EnergyCodecarbon",
        "energy-csv": "compressbench.meters.energy_csv:EnergyCsv",
        "energy-nvml": "compressbench.meters.energy_nvml:EnergyNvml",
        "energy-nvml-power": "compressbench.meters.energy_nvml_power:EnergyNvmlPower",
        "energy-rapl": "compressbench.meters.energy_rapl:EnergyRapl",
        "size": "compressbench.meters.size:Size",
    },
)
layers = Registry(
    "layer",
    {
        "packed": "compressbench.models.packed_linear:PackedLinear",
        "int8-weight": "compressbench.models.int8_linear:Int8WeightLinear",
        "int8-dynamic": "compressbench.models.int8_linear:Int8DynamicLinear",
        "int4": "compressbench.models.int4_linear:Int4Linear",
        "fp8": "compressbench.models.fp8_linear:Fp8Linear",
        "bnb-int8": "compressbench.models.bnb_linear:BnbInt8Linear",
        "bnb-4bit": "compressbench.models.bnb_linear:Bnb4Linear",
        "torchao": "compressbench.models.torchao_linear:TorchaoLinear",
        "semi-structured": "compressbench.models.semi_structured_linear:SemiStructuredLinear",
        "low-rank": "compressbench.models.low_rank_linear:LowRankLinear",
        "rowwise-embedding": "compressbench.models.rowwise_embedding:RowwiseEmbedding",
        "shared-rows": "compressbench.models.shared_rows_embedding:SharedRowsEmbedding",
    },
)
