from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compressbench.core.spec import canonical_json
from compressbench.records import environment
from compressbench.records.environment import Environment, hardware_id, read_cpu_quota, read_environment
from compressbench.records.gpus import Gpu, read_gpus

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse4_2 avx2 f16c avx512f avx512_vnni amx_int8 ibrs
bogomips\t: 4000.00

processor\t: 1
model name\t: another, which is not read
flags\t\t: avx512_bf16
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16 sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n"
FILES = {
    "proc/cpuinfo": XEON,
    "proc/meminfo": "MemTotal:       24684092 kB\nMemFree:  1 kB\n",
    "proc/loadavg": "1.25 0.50 0.10 1/100 4242\n",
    "proc/pressure/cpu": "some avg10=64.10 avg60=2.68 avg300=4.79 total=80138275\nfull avg10=0.00 avg60=0.00\n",
    "proc/sys/kernel/osrelease": "6.18.44\n",
    "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "etc/hostname": "planted-host-7f3a\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3800000\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
}


class GpuError(Exception):
    pass


class Nvml:
    """Two GPUs; the second can't say anything but its handle."""

    NVMLError = GpuError

    def __init__(self, count: int = 2) -> None:
        self.count, self.num_open = count, 0

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda _: "NVIDIA H100",
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=80 * 1024**3),
            "nvmlDeviceGetUUID": lambda _: "GPU-ffc79498-8ff3",
            "nvmlSystemGetDriverVersion": lambda: "580.1",
        }

        def call(*arguments: int) -> Any:
            if arguments == (1,) and name != "nvmlDeviceGetHandleByIndex":
                raise GpuError("lost")
            return answers[name](*arguments)

        return call

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        if self.count < 0:
            raise GpuError("Driver Not Loaded")
        self.num_open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.num_open -= 1


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def read(root: Path, **changes: Any) -> Environment:
    arguments: dict[str, Any] = {"device": "cpu", "num_threads": 2, "root": root, "nvml": Nvml(0)}
    return read_environment(**arguments | changes)


def test_a_machine_is_read_from_its_files(tmp_path: Path) -> None:
    seen = read(plant(tmp_path, FILES), extra={"num_interop_threads": 1})
    assert seen.cpu_model == "Intel(R) Xeon(R) Platinum 8480+"
    assert seen.cpu_flags == ("sse4_2", "avx2", "f16c", "avx512f", "avx512_vnni", "amx_int8")
    assert seen.memory_bytes == 24_684_092 * 1024
    assert (seen.load_average_1min, seen.psi_cpu_some_avg10) == (1.25, 64.1)
    assert (seen.cpu_governor, seen.cpu_max_frequency_hz, seen.cpu_boost) == ("performance", 3.8e9, False)
    assert (seen.kernel, seen.os_release) == ("6.18.44", "Debian GNU/Linux 12 (bookworm)")
    assert (seen.device, seen.num_threads, seen.extra) == ("cpu", 2, {"num_interop_threads": 1})
    assert seen.gpus == ()
    assert seen.packages["numpy"]
    assert set(seen.packages) == set(environment.DISTRIBUTIONS)


def test_an_arm_processor_has_its_own_words(tmp_path: Path) -> None:
    seen = read(plant(tmp_path, {"proc/cpuinfo": ARM}))
    assert seen.cpu_model == "implementer 0x41 part 0xd40"
    assert seen.cpu_flags == ("asimd", "asimddp", "i8mm", "bf16", "sve")


def test_what_can_not_be_read_is_null_and_never_zero(tmp_path: Path) -> None:
    seen = read(tmp_path, num_threads=None, nvml=Nvml(-1)).model_dump()
    unreadable = {
        *("cpu_model", "cpu_flags", "cpu_quota_cores", "cpu_governor", "cpu_max_frequency_hz", "cpu_boost"),
        *("memory_bytes", "gpus", "num_threads", "os_release", "load_average_1min", "psi_cpu_some_avg10"),
    }
    assert {name for name in unreadable if seen[name] is not None} == set()


@pytest.mark.parametrize("garbage", ["", "\n", "\x00\xff garbage", "some avg10=x\n", "MemTotal: many kB\n"])
def test_garbage_in_the_files_is_null(tmp_path: Path, garbage: str) -> None:
    plant(tmp_path, FILES)
    for name in FILES:
        (tmp_path / name).write_bytes(garbage.encode("latin-1"))
    seen = read(tmp_path)
    assert (seen.memory_bytes, seen.load_average_1min, seen.psi_cpu_some_avg10) == (None, None, None)
    assert (seen.cpu_model, seen.cpu_max_frequency_hz, seen.cpu_boost) == (None, None, None)


@pytest.mark.parametrize(
    ("files", "is_on"),
    [
        ({"sys/devices/system/cpu/intel_pstate/no_turbo": "0\n"}, True),
        ({"sys/devices/system/cpu/cpufreq/boost": "1\n"}, True),
        ({"sys/devices/system/cpu/cpufreq/boost": "0\n"}, False),
    ],
)
def test_boost_has_two_spellings(tmp_path: Path, files: dict[str, str], is_on: bool) -> None:
    assert read(plant(tmp_path, files)).cpu_boost is is_on


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4.0),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "9:name=systemd:/\n2:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
    ],
)
def test_the_quota_of_a_container_is_in_cores(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    assert read_cpu_quota(plant(tmp_path, files)) == cores


def test_no_secret_name_or_path_is_in_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {
        "HF_TOKEN": "hf_planted5ecret",
        "HOSTNAME": "planted-host-7f3a",
        "USER": "planted-user",
        "HOME": "/home/planted-user",
        "MY_SETTING": "planted-setting",
        "KMP_AFFINITY": "/home/planted-user/affinity",
        "OMP_PLACES": "hf_planted5ecret with spaces",
    }
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("platform.node", lambda: "planted-host-7f3a")
    text = read(plant(tmp_path, FILES), nvml=Nvml()).model_dump_json()
    assert "planted" not in text
    assert "ffc79498" not in text
    assert str(tmp_path) not in text
    assert '"KMP_AFFINITY":null' in text


def test_settings_of_threads_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("KMP_AFFINITY", "granularity=fine,compact,1,0")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    variables = read(tmp_path).speed_variables
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["KMP_AFFINITY"] == "granularity=fine,compact,1,0"
    assert variables["MKL_NUM_THREADS"] is None


def test_gpus_are_named_without_their_uuid() -> None:
    nvml = Nvml()
    first, second = read_gpus(nvml) or ()
    assert (first.name, first.memory_bytes, first.driver) == ("NVIDIA H100", 80 * 1024**3, "580.1")
    assert first.uuid_hash is not None
    assert (len(first.uuid_hash), "ffc79498" in first.uuid_hash) == (16, False)
    assert second == Gpu(name=None, memory_bytes=None, driver="580.1", uuid_hash=None)
    assert nvml.num_open == 0


def test_without_nvml_it_is_not_known_whether_there_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_gpus(Nvml(-1)) is None
    assert read_gpus(Nvml(0)) == ()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_gpus() is None


def test_the_hardware_id_is_the_same_for_comparable_machines(tmp_path: Path) -> None:
    seen = read(plant(tmp_path, FILES))
    busier = {"load_average_1min": 9.0, "psi_cpu_some_avg10": None, "memory_bytes": 24_684_092 * 1024 - 4096}
    newer = {"kernel": "7.0", "python": "CPython 3.12.1", "packages": {}, "num_threads": 1, "gpus": None}
    assert hardware_id(seen) == hardware_id(seen.model_copy(update=busier | newer))
    assert len(hardware_id(seen)) == 16


@pytest.mark.parametrize(
    "change",
    [
        {"cpu_model": "another"},
        {"cpu_model": None},
        {"cpu_flags": ("avx2",)},
        {"num_usable_cores": 1000},
        {"cpu_quota_cores": 0.5},
        {"memory_bytes": 2**40},
        {"memory_bytes": None},
        {"gpus": (Gpu(name="NVIDIA H100", memory_bytes=80 * 1024**3, driver="1", uuid_hash="a"),)},
    ],
)
def test_the_hardware_id_changes_with_what_decides_speed(tmp_path: Path, change: dict[str, Any]) -> None:
    seen = read(plant(tmp_path, FILES))
    assert hardware_id(seen) != hardware_id(seen.model_copy(update=change))


def test_the_hardware_id_knows_models_of_gpus_but_not_single_ones(tmp_path: Path) -> None:
    def with_gpus(*gpus: Gpu) -> str:
        return hardware_id(seen.model_copy(update={"gpus": gpus}))

    seen = read(tmp_path)
    first = Gpu(name="A", memory_bytes=2**34, driver="1", uuid_hash="a")
    twin, other = (
        first.model_copy(update={"driver": "2", "uuid_hash": "b"}),
        Gpu.model_validate({"name": None, "memory_bytes": None, "driver": None, "uuid_hash": None}),
    )
    assert with_gpus(first) == with_gpus(twin)
    assert with_gpus(first, other) == with_gpus(other, twin)
    assert with_gpus(first) != with_gpus(first, twin)


def test_an_environment_survives_its_json() -> None:
    seen = read_environment(device="cuda:0", num_threads=None)
    assert Environment.model_validate_json(seen.model_dump_json()) == seen
    assert canonical_json(seen.model_dump(mode="json"))


def test_it_is_imported_without_anything_heavy() -> None:
    code = "import sys, compressbench.records.environment; print({'torch', 'codecarbon', 'psutil'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
