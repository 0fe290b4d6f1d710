"""The contracts of the rooms. Nobody has to inherit from anything here: a class that has the members will do.

Options of a method, task or runtime are the fields of a pydantic model (`compressbench.core.spec.Spec`), so that a recipe
can be checked before anything heavy is imported: keep torch out of the top of your module and import it where you use it.
`Any` stands for torch modules and tensors, which this floor must not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import Field, model_validator

from compressbench.core.reading import Kind, Reading, Uncertainties, Values
from compressbench.core.spec import Spec

Batch = Mapping[str, Any]
"""Model inputs by name, e.g. input_ids (batch x length, int64) and attention_mask (the same shape)."""

HandleT = TypeVar("HandleT")
HandleT_contra = TypeVar("HandleT_contra", contravariant=True)


class Facts(Spec):
    """What a scheduler must know of a method; compatibility is derived from it.

    `is_random` says that its seed changes what it makes, beyond the samples it calibrates or trains on.
    `accepts` are the weight formats it can start from: float32, bfloat16, float16, or packed ones such as int8.
    `requires` are the distributions (PyPI names) it needs beyond the core; those of `runs_elsewhere` may live in an
    environment of their own.
    """

    accepts: frozenset[str] = frozenset({"float32", "bfloat16", "float16"})
    needs_training_data: bool = False
    needs_teacher: bool = False
    needs_calibration: bool = False
    is_random: bool = False
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    requires: tuple[str, ...] = ()
    runs_elsewhere: tuple[str, ...] = ()
    paper: str = ""


class Claim(Spec):
    """What a step says that it has done to a model. An audit checks it on the model itself, on the files, and on the clock.

    `modules` are those it worked on, `left_out` those it could have been expected to work on, with the reasons. `bits` are
    stored bits per weight of those modules, scales and zero points not counted; `sparsity` is the fraction of zeros over
    all weights of those modules, and `mask_structure` such as "2:4" holds in every row of every one of them.
    `kernels` are profiler names (parts of them will do) of which at least one has to run. Modules of a step that
    `is_retrained` may all have other values than the baseline's.
    """

    step: str
    modules: tuple[str, ...] = ()
    left_out: Mapping[str, str] = {}
    bits: float | None = None
    sparsity: float | None = None
    mask_structure: str | None = None
    kernels: tuple[str, ...] = ()
    is_smaller: bool = False
    is_faster: bool = False
    is_retrained: bool = False


class Method(Protocol[HandleT]):
    """One step of compression: an immutable value whose fields are its options."""

    facts: ClassVar[Facts]

    def weights_after(self, weights: str) -> str:
        """The weight format that this step leaves, given the one it finds."""
        ...

    def check_model(self, config: Mapping[str, Any]) -> None:
        """Raise UnsupportedError if a model with this configuration (the fields of its config.json) can't be handled.

        Called when a recipe is planned, if the configuration can be read without a network, and again before `apply`.
        """
        ...

    def apply(self, handle: HandleT) -> HandleT:
        """A new handle with the step done. The model in `handle` belongs to the step, which may change it in place.

        Raises UnsupportedError if the model or device can't be handled.
        """
        ...


@runtime_checkable
class Trains(Protocol):
    """A method that passes over training samples, and can say how many when a recipe is planned."""

    def num_training_samples(self, available: int) -> float: ...


class Session(Protocol):
    """A model in the runtime it will be deployed on."""

    device: str

    def __call__(self, batch: Batch) -> Any:
        """Logits for `batch`, still on the device: (batch x labels) or (batch x length x vocabulary); of a model without
        a head its last hidden states (batch x length x hidden size).
        """
        ...

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        """Greedy continuation by exactly `num_tokens` tokens: token ids (batch x (length + num_tokens)).

        `on_token` is called once per generated position, in order, when its token ids are on the host.
        """
        ...

    def synchronize(self) -> None:
        """Return when everything that was asked of the device is done."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class SharesPrefix(Protocol):
    """A session that scores the ends of sequences with little work: what sequences begin with is computed once for all of
    them, and logits only where they are asked for.
    """

    def last_logits(
        self, sequences: Sequence[Sequence[int]], num_last: Sequence[int], groups: Sequence[int]
    ) -> Iterable[tuple[Sequence[int], Any]] | None:
        """The logits that predict the last `num_last[i]` tokens of `sequences[i]`, in parts: places, and (places x
        vocabulary). Each sequence has at least one token more than that.

        Places number these tokens of all sequences, one sequence after the other; each comes once. Sequences of one group
        may begin alike. None for a model that can't share what they begin with.
        """
        ...


class Decoding(Spec):
    """How texts are written: greedy at temperature 0, else sampled; a text ends at its end token or after a stop string."""

    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    num_samples: int = Field(1, ge=1)
    seed: int = 0
    until: tuple[str, ...] = ()


class Written(NamedTuple):
    """A text's token ids without its prompt; `has_ended` says that they go to its end token or stop string."""

    tokens: list[int]
    has_ended: bool


@runtime_checkable
class Writes(Protocol):
    """A session that writes texts, each up to its own end. What `Session.generate` times has a fixed length instead."""

    def write(self, batch: Batch, decoding: Decoding) -> list[Written]:
        """`num_samples` texts for every prompt of the left-padded batch, those of one prompt next to each other."""
        ...


class Runtime(Protocol[HandleT_contra]):
    """Turns a handle into a session."""

    requires: ClassVar[tuple[str, ...]]

    def prepare(self, handle: HandleT_contra, device: str) -> Session: ...


class Provenance(Spec):
    """How an instrument gets its numbers.

    `tick_s` is the probed gap between two increments of the instrument, None for what is computed and not read.
    `relative_uncertainty` is the standard uncertainty of its gain (k = 1), which cancels in ratios on one device.
    """

    kind: Kind
    source: str = Field(min_length=1)
    boundary: str = ""
    relative_uncertainty: float | None = Field(None, ge=0)
    uncertainty_reason: str = ""
    tick_s: float | None = Field(None, gt=0)
    notes: tuple[str, ...] = ()


class Between(NamedTuple):
    """What a counter counted from one increment to another, with its standard uncertainty.

    The first is `begins_s` after the window's begin (before it, if negative), the last `ends_s` after its end.
    """

    begins_s: float
    ends_s: float
    value: float
    uncertainty: float


class Window(Spec):
    """What one instrument read between a start and a stop: additive values by name with a unit suffix, e.g. "energy_j".

    `uncertainties` are standard uncertainties (k = 1) in the unit of the value, of all that does not cancel in a ratio:
    edges, quantisation, polling. Without values, `reason` says why: below resolution, counter reset, device lost.
    `between` says what is known better than the value: all of a time that is a little longer or shorter than the window.
    """

    seconds: float = Field(ge=0)
    values: Values = Field({})
    uncertainties: Uncertainties = Field({})
    reason: str = ""
    between: Between | None = None

    @model_validator(mode="after")
    def _has_values_or_says_why_not(self) -> Window:
        if bool(self.values) == bool(self.reason):
            raise ValueError(
                f"a window has either values or a reason for their absence (got {self.values}, {self.reason!r})"
            )
        if self.values.keys() != self.uncertainties.keys():
            raise ValueError(
                f"every value needs its uncertainty (got {set(self.values)} and {set(self.uncertainties)})"
            )
        return self


class Instrument(Protocol):
    """An open meter around windows of work. The loop decides the order and synchronises the device.

    `provenances` has an entry for every name of a value. Marking a window is cheap (at most 100 microseconds), because
    it happens between timed calls; what takes time, waiting for the next tick included, happens in `collect`.
    """

    min_window_s: float

    @property
    def provenances(self) -> Mapping[str, Provenance]: ...

    def start(self) -> None:
        """Mark the beginning of a window. Windows don't overlap. Raises MeterError if the instrument is gone."""
        ...

    def stop(self) -> None:
        """Mark its end."""
        ...

    def collect(self) -> list[Window]:
        """The windows marked since the last `collect`, in their order; one that can't be trusted has a reason.

        A value is never guessed and never zero for "unknown". Raises MeterError if the instrument as a whole is broken.
        """
        ...

    def close(self) -> None: ...


class Meter(Protocol):
    """Opens an instrument that is read around every block of calls (`scope = "block"`)."""

    scope: ClassVar[str]

    def open(self, device: str) -> Instrument:
        """Raises MeterError with the reason if this machine has no such instrument."""
        ...


class Probe(Protocol[HandleT_contra]):
    """Reads what belongs to a model rather than to a window of time (`scope = "model"`): size, memory."""

    scope: ClassVar[str]

    def read(
        self, handle: HandleT_contra, session: Session, batch: Batch, output_tokens: int | None = None
    ) -> list[Reading]:
        """`batch` has the workload's shapes; with `output_tokens` the workload generates so many."""
        ...


BatchSource = Callable[[int, int | None, int], Sequence[Batch]]
"""Training batches by batch size, number of samples (None: all) and seed."""

Clock = Callable[[], int]
"""Monotonic nanoseconds, e.g. time.perf_counter_ns."""
