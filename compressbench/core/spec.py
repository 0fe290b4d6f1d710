"""The one base of everything that is checked when it is made: frozen, and closed to unknown keys."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """An immutable value. An unknown key, a wrong type, and NaN or infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def canonical_json(data: object) -> str:
    """One spelling for equal data: sorted keys, no spaces. Raises ValueError for NaN and infinity."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(data: object) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON of `data`."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()[:16]
