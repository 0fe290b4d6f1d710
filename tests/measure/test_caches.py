from __future__ import annotations

from pathlib import Path

import pytest

from compressbench.measure.caches import available_memory_bytes, last_level_cache_bytes

MIB = 1024**2


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def write_cache(root: Path, core: int, index: int, **facts: str) -> None:
    for name, text in facts.items():
        write(root, f"sys/devices/system/cpu/cpu{core}/cache/index{index}/{name}", text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Four cores, of which each pair shares 32 MiB; every core has a first and a second level of its own."""
    for core in range(4):
        write_cache(tmp_path, core, 0, level="1", type="Data", size="48K", shared_cpu_list=str(core))
        write_cache(tmp_path, core, 1, level="1", type="Instruction", size="64M", shared_cpu_list=str(core))
        write_cache(tmp_path, core, 2, level="2", type="Unified", size="1M", shared_cpu_list=str(core))
        pair = "0-1" if core < 2 else "2-3"
        write_cache(tmp_path, core, 3, level="3", type="Unified", size="32768K", shared_cpu_list=pair)
    return tmp_path


@pytest.mark.parametrize(("cores", "mebibytes"), [({0}, 32), ({0, 1}, 32), ({1, 2}, 64), ({0, 1, 2, 3}, 64)])
def test_shared_caches_count_once_and_only_those_in_reach(machine: Path, cores: set[int], mebibytes: int) -> None:
    assert last_level_cache_bytes(machine, frozenset(cores)) == mebibytes * MIB


def test_a_machine_without_a_third_level_ends_with_its_second(tmp_path: Path) -> None:
    for core in range(2):
        write_cache(tmp_path, core, 0, level="1", type="Data", size="32K", shared_cpu_list=str(core))
        write_cache(tmp_path, core, 1, level="2", type="Unified", size="512K", shared_cpu_list=str(core))
    assert last_level_cache_bytes(tmp_path, frozenset({0, 1})) == MIB


@pytest.mark.parametrize("size", ["", "unknown", "12 apples", "-1K"])
def test_what_cannot_be_read_is_unknown_and_not_zero(tmp_path: Path, size: str) -> None:
    write_cache(tmp_path, 0, 0, level="3", type="Unified", size=size, shared_cpu_list="0")
    assert last_level_cache_bytes(tmp_path, frozenset({0})) is None
    assert last_level_cache_bytes(tmp_path / "nothing", frozenset({0})) is None


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB")
    write(tmp_path, "sys/fs/cgroup/memory.max", "max")
    write(tmp_path, "sys/fs/cgroup/memory.current", "1000")
    assert available_memory_bytes(tmp_path) == 8000 * 1024
    write(tmp_path, "sys/fs/cgroup/memory.max", "5000")
    assert available_memory_bytes(tmp_path) == 4000
    write(tmp_path, "sys/fs/cgroup/memory.max", "900")
    assert available_memory_bytes(tmp_path) == 0


def test_an_old_container_is_read_too(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemAvailable:    8000 kB")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "7000")
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", "1000")
    assert available_memory_bytes(tmp_path) == 6000
