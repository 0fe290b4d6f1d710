"""What a number depends on besides the model: machine, software, threads, and how busy it was.

Only what is listed here is read: no host name, user, address, path, or arbitrary environment variable. What can't be
read is None, never 0.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressbench.core.registry import installed_version
from compressbench.core.spec import Spec, content_hash
from compressbench.records.gpus import Gpu, read_gpus

DISTRIBUTIONS = (
    *("compressbench", "torch", "transformers", "tokenizers", "safetensors", "numpy", "datasets", "accelerate"),
    *("codecarbon", "nvidia-ml-py", "bitsandbytes", "torchao", "optimum-quanto", "hqq", "peft", "triton"),
    *("onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "compressed-tensors", "gguf", "scipy"),
    *("lm_eval", "jiwer", "pillow"),
)
CPU_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
SPEED_VARIABLES = (
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_DYNAMIC", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY"),
    *("MKL_NUM_THREADS", "MKL_DYNAMIC", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "NUMEXPR_NUM_THREADS"),
    *("KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_HW_SUBSET", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"),
    *("ATEN_CPU_CAPABILITY", "TOKENIZERS_PARALLELISM"),
)
# what such a setting looks like; anything else (a path, a secret in the wrong variable) stays out of the record
_SPEED_SETTING = re.compile(r"[A-Za-z0-9_,.:=+{}()*-]{1,64}")
_ROOT = Path("/")
_GIB = 1024**3


class Environment(Spec):
    """The state of machine and software when a run started; None where it couldn't be read.

    `cpu_quota_cores` is None too if the container has no quota. `psi_cpu_some_avg10` is the percentage of the last 10 s
    in which some process waited for a CPU. `gpus` is None without NVML. `extra` are settings of the caller.
    """

    device: str
    os: str | None
    os_release: str | None
    kernel: str | None
    machine: str | None
    python: str
    cpu_model: str | None
    cpu_flags: tuple[str, ...] | None
    num_logical_cores: int | None
    num_usable_cores: int | None
    cpu_quota_cores: float | None
    cpu_governor: str | None
    cpu_max_frequency_hz: float | None
    cpu_boost: bool | None
    memory_bytes: int | None
    gpus: tuple[Gpu, ...] | None
    packages: dict[str, str | None]
    num_threads: int | None
    speed_variables: dict[str, str | None]
    load_average_1min: float | None
    psi_cpu_some_avg10: float | None
    extra: dict[str, str | int | float | bool | None]


def read_environment(
    *,
    device: str,
    num_threads: int | None,
    extra: Mapping[str, str | int | float | bool | None] | None = None,
    root: Path = _ROOT,
    nvml: Any = None,
) -> Environment:
    """Read the environment now. `num_threads` is what the runtime was told; `extra` more of that kind, never secrets.

    /proc, /sys and /etc are read under `root`; `nvml` stands in for the module pynvml. Nothing missing is an error.
    """
    cpu = _first_cpu(root)
    return Environment(
        device=device,
        os=platform.system() or None,
        os_release=_os_release(root),
        kernel=_text(root / "proc/sys/kernel/osrelease") or platform.release() or None,
        machine=platform.machine() or None,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu_model=_cpu_model(cpu),
        cpu_flags=_cpu_flags(cpu),
        num_logical_cores=os.cpu_count(),
        num_usable_cores=_num_usable_cores(),
        cpu_quota_cores=read_cpu_quota(root),
        cpu_governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        cpu_max_frequency_hz=_max_frequency_hz(root),
        cpu_boost=_boost(root),
        memory_bytes=_memory_bytes(root),
        gpus=read_gpus(nvml),
        packages={name: installed_version(name) for name in DISTRIBUTIONS},
        num_threads=num_threads,
        speed_variables={name: _speed_variable(name) for name in SPEED_VARIABLES},
        load_average_1min=_number_in(root / "proc/loadavg", r"^(\S+)"),
        psi_cpu_some_avg10=_number_in(root / "proc/pressure/cpu", r"^some avg10=(\S+)"),
        extra=dict(extra or {}),
    )


def hardware_id(environment: Environment) -> str:
    """16 hexadecimal digits, equal for machines whose speeds can be compared: processor, cores, memory, GPUs."""
    gpus = [[gpu.name, _rounded_gib(gpu.memory_bytes)] for gpu in environment.gpus or ()]
    return content_hash(
        {
            "cpu_model": environment.cpu_model,
            "cpu_flags": environment.cpu_flags and list(environment.cpu_flags),
            "machine": environment.machine,
            "cores": [environment.num_logical_cores, environment.num_usable_cores, environment.cpu_quota_cores],
            "memory_gib": _rounded_gib(environment.memory_bytes),
            "gpus": sorted(gpus, key=str),
        }
    )


def _rounded_gib(num_bytes: int | None) -> int | None:
    return None if num_bytes is None else round(num_bytes / _GIB)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _number_in(path: Path, pattern: str) -> float | None:
    found = re.search(pattern, _text(path) or "", re.MULTILINE)
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def _os_release(root: Path) -> str | None:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text(root / "etc/os-release") or "", re.MULTILINE)
    return found[1] if found and found[1] else None


def _first_cpu(root: Path) -> dict[str, str]:
    """The first block of /proc/cpuinfo; the others repeat it, on hundreds of cores slowly."""
    block: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    break
                key, _, value = line.partition(":")
                block[key.strip()] = value.strip()
    except OSError:
        return {}
    return block


def _cpu_model(cpu: Mapping[str, str]) -> str | None:
    if cpu.get("model name"):
        return cpu["model name"]
    if "CPU part" in cpu:  # Arm has no name there
        return f"implementer {cpu.get('CPU implementer', '?')} part {cpu['CPU part']}"
    return None


def _cpu_flags(cpu: Mapping[str, str]) -> tuple[str, ...] | None:
    present = cpu.get("flags", cpu.get("Features"))
    return None if present is None else tuple(flag for flag in CPU_FLAGS if flag in present.split())


def _num_usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def read_cpu_quota(root: Path = _ROOT) -> float | None:
    """The container's CPU quota in cores: the smallest of its cgroup and of those above; None without one."""
    quotas = [quota for folder in cgroup_folders(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def cgroup_folders(root: Path) -> list[Path]:
    base, folders = root / "sys/fs/cgroup", list[Path]()
    for line in (_text(root / "proc/self/cgroup") or "0::/").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "cpu" in controllers.split(","):
            top = base if number == "0" else base / "cpu"
            inside = top / path.lstrip("/")
            folders += [folder for folder in (inside, *inside.parents) if folder.is_relative_to(top)]
    return folders


def _quota_of(folder: Path) -> float | None:
    words = (_text(folder / "cpu.max") or "").split()
    if len(words) != 2:
        words = [_text(folder / "cpu.cfs_quota_us") or "", _text(folder / "cpu.cfs_period_us") or ""]
    if not all(re.fullmatch(r"\d+", word) for word in words) or int(words[1]) == 0:
        return None  # "max" and -1 mean no quota
    return int(words[0]) / int(words[1])


def _max_frequency_hz(root: Path) -> float | None:
    kilohertz = _number_in(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", r"^(\d+)$")
    return kilohertz * 1e3 if kilohertz else None


def _boost(root: Path) -> bool | None:
    no_turbo = _text(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = _text(root / "sys/devices/system/cpu/cpufreq/boost")
    return {"0": True, "1": False}.get(no_turbo or "", {"0": False, "1": True}.get(boost or ""))


def _memory_bytes(root: Path) -> int | None:
    kibibytes = _number_in(root / "proc/meminfo", r"^MemTotal:\s+(\d+) kB")
    return int(kibibytes) * 1024 if kibibytes else None


def _speed_variable(name: str) -> str | None:
    value = os.environ.get(name, "")
    return value if _SPEED_SETTING.fullmatch(value) else None
