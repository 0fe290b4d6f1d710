"""Which layer of the student learns from which of the teacher."""

from __future__ import annotations

from collections.abc import Sequence

from compressbench.core.errors import UnsupportedError

Pairs = list[tuple[int, int]]
"""(student's, teacher's) hidden states: 0 is what the embeddings give, m what layer m gives (from 1)."""


def pairs_of(mapping: str | Sequence[tuple[int, int]], num_student: int, num_teacher: int) -> Pairs:
    """The pairs for a student of `num_student` layers and a teacher of `num_teacher`, by rule or as listed.

    `uniform`: (m, m·N/M rounded) for m = 0 .. M, embeddings and last layer among them (TinyBERT, arXiv:1909.10351).
    `skip`: (m, m·k) for m = 1 .. M with the whole number k = N // M; `last`: (m, N - M + m): as in Patient Knowledge
    Distillation (arXiv:1908.09355), but with the student's last layer. Raises UnsupportedError if a layer isn't there,
    and for a rule when the student has more layers than the teacher.
    """
    if not isinstance(mapping, str):
        return _listed(mapping, num_student, num_teacher)
    if num_student > num_teacher:
        raise UnsupportedError(
            f"layer_mapping {mapping} needs a teacher with at least as many layers as the student",
            got=f"{num_student} layers that learn from {num_teacher}",
            do="List the pairs of layers.",
        )
    if mapping == "uniform":
        return [(m, (2 * m * num_teacher + num_student) // (2 * num_student)) for m in range(num_student + 1)]
    if mapping == "skip":
        return [(m, m * (num_teacher // num_student)) for m in range(1, num_student + 1)]
    return [(m, num_teacher - num_student + m) for m in range(1, num_student + 1)]


def _listed(pairs: Sequence[tuple[int, int]], num_student: int, num_teacher: int) -> Pairs:
    for pair in pairs:
        if pair[0] > num_student or pair[1] > num_teacher:
            raise UnsupportedError(
                f"layer_mapping has a layer that isn't there: {list(pair)}",
                got=f"a student of {num_student} layers and a teacher of {num_teacher}",
                do="Count from 0 for the embeddings and 1 for the first layer.",
            )
    return [(one, other) for one, other in pairs]
