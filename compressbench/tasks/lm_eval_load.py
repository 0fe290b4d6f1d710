"""Loading a task of lm-evaluation-harness with its documents."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from compressbench.core.errors import CompressbenchError, DataError, MissingDependencyError
from compressbench.tasks.lm_eval_quiet import as_seeded_by_the_harness, quiet_harness
from compressbench.tasks.lm_eval_tasks import Definition, short_error


@dataclass(frozen=True)
class HarnessTask:
    """A task of the harness with its documents, ready to be asked. `revision` is a hash over the documents' hashes."""

    source: str
    split: str
    revision: str
    task: Any
    num_documents: int

    def __len__(self) -> int:
        return self.num_documents


def load_task(definition: Definition, num_fewshot: int | None, limit: int | None) -> HarnessTask:
    """Build the task and read its documents, from the network if that is where they are; DataError if that fails."""
    from lm_eval.tasks import TaskManager

    try:
        with quiet_harness(), as_seeded_by_the_harness():
            manager = TaskManager(include_defaults=False)
            (task,) = manager.load([str(definition.path)])["tasks"].values()
            _set_fewshot(task, definition, num_fewshot)
            hashes = [_hash(document) for document in islice(task.eval_docs, limit)]
    except CompressbenchError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"the task '{definition.name}' needs a library of its own", where="lm-eval", got=short_error(error)
        ) from error
    except Exception as error:  # data sets, hubs and the task's own code may raise anything
        raise DataError(
            f"the task '{definition.name}' can't be loaded", where="lm-eval", got=short_error(error),
            do="Check the connection, and the task's dataset_path.",
        ) from error  # fmt: skip
    revision = "sha256:" + hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return HarnessTask(f"lm-eval:{definition.name}", definition.split, revision, task, len(hashes))


def _set_fewshot(task: Any, definition: Definition, num_fewshot: int | None) -> None:
    """As lm_eval.simple_evaluate does, but where it would ignore the number, say so."""
    defined = task.get_config("num_fewshot")
    if num_fewshot and defined == 0:
        raise DataError(
            f"the task '{definition.name}' is defined without examples", got=f"num_fewshot {num_fewshot}",
            do="Leave num_fewshot out.",
        )  # fmt: skip
    if num_fewshot is not None or defined is None:
        task.set_config(key="num_fewshot", value=num_fewshot or 0)


def _hash(document: Any) -> str:
    """The harness's doc_hash."""
    from lm_eval.utils import handle_non_serializable, hash_string

    return str(hash_string(json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False)))
