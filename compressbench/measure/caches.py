"""How large the processor's last-level caches are, and how much memory is left, as Linux tells them."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ROOT = Path("/")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def last_level_cache_bytes(root: Path = _ROOT, cores: frozenset[int] | None = None) -> int | None:
    """Sum of the last-level caches of `cores` (those this process may run on), each once; None if it isn't told.

    Read from /sys/devices/system/cpu (kernel: Documentation/ABI/testing/sysfs-devices-system-cpu). A virtual machine may
    tell less or more than it gets.
    """
    found: dict[str, int] = {}
    for core in sorted(usable_cores() if cores is None else cores):
        caches = [
            cache
            for folder in (root / f"sys/devices/system/cpu/cpu{core}/cache").glob("index*")
            if (cache := _read_cache(folder)) is not None
        ]
        if caches:
            level, shared, size = max(caches)
            found[f"{level} {shared}"] = size
    return sum(found.values()) or None


def usable_cores() -> frozenset[int]:
    return (
        frozenset(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else frozenset(range(os.cpu_count() or 1))
    )


def _read_cache(folder: Path) -> tuple[int, str, int] | None:
    """Level, the cores that share it, and bytes; None for instructions and for what can't be read."""
    texts = {name: _text(folder / name) for name in ("level", "type", "size", "shared_cpu_list")}
    size = re.fullmatch(r"(\d+)([KMG]?)", texts["size"])
    if size is None or not texts["level"].isdigit() or texts["type"] not in ("Data", "Unified"):
        return None
    return int(texts["level"]), texts["shared_cpu_list"], int(size[1]) * _UNITS[size[2]]


def available_memory_bytes(root: Path = _ROOT) -> int | None:
    """What can still be taken without swapping: the machine's, or what the container has left; None if unknown."""
    machine = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    lefts = [int(machine[1]) * 1024] if machine else []
    folder = root / "sys/fs/cgroup"
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        for place in (folder, folder / "memory"):
            texts = _text(place / limit), _text(place / used)
            if all(text.isdigit() for text in texts):
                lefts.append(max(0, int(texts[0]) - int(texts[1])))
    return min(lefts, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
