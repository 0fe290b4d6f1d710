"""What a recipe says: one model, the questions asked of it, one baseline and the candidates compared with it.

The names behind `use` and their options are checked when a recipe is planned, where the methods, tasks, runtimes and
meters are known; everything else is checked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from compressbench.core.spec import Spec
from compressbench.recipe.problems import shown
from compressbench.recipe.use import Name, Use, Used, wrong

RESERVED_NAMES = ("baseline", "control")
_DEFAULT_BATCH_SIZE = {"single-stream": 1, "offline": 32, "server": 1}

BatchSize = Annotated[int, Field(strict=True, ge=1, le=65_536)]
ThreadCount = Annotated[int, Field(strict=True, ge=1, le=1024)]
OneLine = Annotated[str, Field(strict=True, max_length=512, pattern=r"^\S(?:.*\S)?$")]


class ModelSpec(Spec):
    """The model that is compressed."""

    id: OneLine = Field(
        description="`embedded:NAME`, `random:NAME` (speed only), a Hugging Face Hub id, or a local folder."
    )
    revision: OneLine | None = Field(None, description="The commit, tag or branch on the Hub; pin a commit.")
    trust_remote_code: bool = Field(False, strict=True, description="Whether code that comes with the model may run.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="The format the weights load in.")


def _read_model(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


def _default_batch_size(data: dict[str, Any]) -> int:
    return _DEFAULT_BATCH_SIZE[data["scenario"]]


class Workload(Spec):
    """What the model is asked to do while it is measured."""

    scenario: Literal["single-stream", "offline", "server"] = Field(
        "single-stream",
        description="One request after the other (latency), batches as fast as they go (throughput), or requests that "
        "arrive at random (highest rate within a limit of latency).",
    )
    tier: Literal["smoke", "standard", "audit"] = Field(
        "standard",
        description="How long to measure: a few seconds per arm (medians only), 30 s, or 600 s.",
    )
    batch_size: int = Field(
        default_factory=_default_batch_size,
        strict=True,
        ge=1,
        le=65_536,
        description="Inputs per call: 1 for single-stream, by default 32 for offline.",
    )
    sequence_length: int = Field(32, strict=True, ge=1, le=1_000_000, description="Tokens per input.")
    output_tokens: int | None = Field(
        None, strict=True, ge=1, le=1_000_000, description="Tokens to generate per input; null for a forward pass."
    )
    num_threads: int | None = Field(
        None, strict=True, ge=1, le=1024, description="CPU threads of the runtime; null leaves it as it is."
    )
    rounds: int | None = Field(
        None, strict=True, ge=1, le=10_000, description="Rounds of six blocks per candidate; null: the tier's."
    )
    block_s: float | None = Field(
        None, strict=True, gt=0, le=600, description="Seconds per block of calls; null: the tier's."
    )
    isolation: Literal["auto", "same-process", "processes"] = Field(
        "auto",
        description="Both models in one process, or each block in a process of its own; auto: when memory runs out.",
    )
    batch_sizes: tuple[BatchSize, ...] | None = Field(
        None, min_length=1, max_length=32, description="Of offline: batch sizes to try; each arm runs at its best one."
    )
    thread_counts: tuple[ThreadCount, ...] | None = Field(
        None, min_length=1, max_length=16, description="Of offline: CPU threads to try at each of the batch sizes."
    )
    latency_limit_s: float | None = Field(
        None,
        strict=True,
        gt=0,
        le=3600,
        description="Of server: the latency that must be kept; needed there. Of offline: of a batch, in the sweep.",
    )
    latency_quantile: float = Field(
        0.99, strict=True, gt=0, lt=1, description="Of server: the share of requests that must keep it."
    )

    @model_serializer(mode="wrap")
    def _leaves_out_what_older_recipes_lack(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that a recipe without it has the hash that it had before there was such a key."""
        found: dict[str, Any] = serialize(self)
        if found.get("thread_counts") is None:
            found.pop("thread_counts", None)
        return found

    @field_validator("batch_size")
    @classmethod
    def _fits_the_scenario(cls, batch_size: int, info: ValidationInfo) -> int:
        scenario = info.data.get("scenario")
        if scenario in ("single-stream", "server") and batch_size != 1:
            do = "Use scenario: offline to measure batches."
            raise wrong(f"must be 1 when the scenario is {scenario}", got=str(batch_size), do=do)
        return batch_size

    @model_validator(mode="after")
    def _only_what_the_scenario_has(self) -> Workload:
        if self.batch_sizes is not None and self.scenario != "offline":
            raise wrong("can be tried only when the scenario is offline", at="batch_sizes", got=self.scenario)
        if self.thread_counts is not None and self.batch_sizes is None:
            raise wrong("needs batch_sizes to try them at", at="thread_counts", got="no batch_sizes")
        if self.latency_limit_s is None and self.scenario == "server":
            raise wrong("is required", at="latency_limit_s", got="scenario server")
        if self.latency_limit_s is not None and self.scenario != "server" and self.batch_sizes is None:
            what = "belongs to the scenario server, or to offline with batch_sizes"
            raise wrong(what, at="latency_limit_s", got=f"scenario {self.scenario}")
        return self


class Baseline(Spec):
    """What the candidates are compared with."""

    runtime: Used = Field(Use(name="torch"), description="The runtime it is measured in.")
    compress: tuple[Used, ...] = Field(
        (), description="The steps of compression, in order; none for the model as it is."
    )


def _runtime_may_be_left_out(schema: dict[str, Any]) -> None:
    schema["required"].remove("runtime")
    reference = schema["properties"]["runtime"].pop("$ref")
    schema["properties"]["runtime"] |= {"anyOf": [{"$ref": reference}, {"type": "null"}], "default": None}


class Candidate(Spec):
    """One compressed model that could be deployed."""

    model_config = ConfigDict(json_schema_extra=_runtime_may_be_left_out)

    name: Name = Field(description="Unique in the recipe; it becomes part of file names.")
    compress: tuple[Used, ...] = Field((), description="The steps of compression, in order.")
    runtime: Used = Field(description="The runtime it is measured in; null or left out: the baseline's.")

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name.lower() in RESERVED_NAMES:
            raise wrong("is a reserved name", got=shown(name), do="Choose another name.")
        return name


class Recipe(Spec):
    """A comparison: one baseline and its candidates, measured in the same run."""

    name: Name = Field(description="The name of the recipe; it becomes part of file names.")
    model: Annotated[ModelSpec, BeforeValidator(_read_model, json_schema_input_type=str | ModelSpec)] = Field(
        description="The model; a bare text is its id."
    )
    tasks: tuple[Used, ...] = Field(min_length=1, description="The questions whose metrics are reported.")
    workload: Workload = Field(
        default_factory=Workload, description="What is asked while time and energy are measured."
    )
    meters: tuple[Used, ...] = Field(
        (Use(name="latency"), Use(name="energy"), Use(name="memory"), Use(name="size")),
        description="The quantities to measure; each at most once.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda if there is one, else cpu.")
    seed: int = Field(0, strict=True, ge=0, le=2**32 - 1, description="Seeds every random choice.")
    repeats: int = Field(
        1,
        strict=True,
        ge=1,
        le=100,
        description="How often a candidate that draws anything is made, each time with another seed and calibration draw; "
        "costs are measured on the first.",
    )
    noise_floor: bool = Field(
        True,
        strict=True,
        description="Whether the baseline answers twice, to see how much it differs from itself.",
    )
    baseline: Baseline = Field(default_factory=Baseline, description="What the candidates are compared with.")
    candidates: tuple[Candidate, ...] = Field(
        (), description="The compressed models; none measures the baseline alone."
    )

    @field_validator("candidates", mode="before")
    @classmethod
    def _inherit_runtime(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple):
            return value
        # without a valid baseline the recipe is refused anyway
        runtime = info.data.get("baseline", Baseline()).runtime
        return [
            {**item, "runtime": runtime} if isinstance(item, Mapping) and item.get("runtime") is None else item
            for item in value
        ]

    @field_validator("meters")
    @classmethod
    def _meters_differ(cls, meters: tuple[Use, ...]) -> tuple[Use, ...]:
        at = _first_double([meter.name for meter in meters])
        if at is not None:
            raise wrong(
                "a meter must stand only once", at=f"[{at}]", got=shown(meters[at].name), do="Keep one of them."
            )
        return meters

    @field_validator("candidates")
    @classmethod
    def _names_differ(cls, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        # some file systems don't tell upper from lower case
        at = _first_double([candidate.name.lower() for candidate in candidates])
        if at is not None:
            what = "must differ from the other candidates by more than upper and lower case"
            raise wrong(what, at=f"[{at}].name", got=shown(candidates[at].name))
        return candidates

    @model_validator(mode="after")
    def _tell_uses_where_they_stand(self) -> Recipe:
        # backwards, so that an inherited runtime says baseline.runtime
        for key_path, use in reversed(list(self.uses())):
            use._key_path = key_path
        return self

    def uses(self) -> Iterator[tuple[str, Use]]:
        """Every use in the recipe with its key path; a runtime that a candidate inherits comes once per candidate."""
        yield from _numbered("tasks", self.tasks)
        yield from _numbered("meters", self.meters)
        yield "baseline.runtime", self.baseline.runtime
        yield from _numbered("baseline.compress", self.baseline.compress)
        for at, candidate in enumerate(self.candidates):
            yield from _numbered(f"candidates[{at}].compress", candidate.compress)
            yield f"candidates[{at}].runtime", candidate.runtime


def _numbered(key: str, uses: tuple[Use, ...]) -> Iterator[tuple[str, Use]]:
    yield from ((f"{key}[{at}]", use) for at, use in enumerate(uses))


def _first_double(words: list[str]) -> int | None:
    return next((at for at, word in enumerate(words) if word in words[:at]), None)


def canonical(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON-ready data with every default written out: one spelling for equal recipes.

    Order of keys, comments, lines, and a bare name against `{use: name}` make no difference.
    `parse_recipe` reads it back.
    """
    return recipe.model_dump(mode="json")


def recipe_json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of recipes as people write them; it can't see names and options behind `use`."""
    schema = Recipe.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
