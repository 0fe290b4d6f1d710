"""Grams per second of reserved hardware: what making it emitted, spread over its working life.

Single figures are cited from the sources named with them; no table of theirs is copied. Those of Boavizta are of its
version 2.5.0, which stands for a year.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from compressbench.lifecycle.amounts import Amount, absent, exact, given, inverse, product, total_of

RATE_UNIT = "g/s"
_SECONDS_PER_YEAR = 365 * 86400.0
_BOAVIZTA = "Boavizta API 2.5.0"
_PCF = (
    "NVIDIA HGX H100 product carbon footprint (https://images.nvidia.com/aem-dam/Solutions/documents/HGX-H100-PCF-Summary.pdf),"
    " an eighth of the 8-GPU baseboard, as EcoLogits cites it"
)


class _Device(NamedTuple):
    """A device by its name in records, and the server around it with the share that one such device has of it."""

    pattern: str
    made: Amount
    host: Amount
    share: Amount


class Hardware(NamedTuple):
    """What a row ran on: its name in the record, whether a GPU did the work, and the CPU cores that it may use."""

    name: str
    is_gpu: bool
    num_cores: int | None


class Held(NamedTuple):
    """Reserved hardware. `kg` is its footprint in the share that is held of it; `parts` name what it was added from."""

    kg: Amount
    parts: dict[str, Amount]


class Life(NamedTuple):
    """Years in use, and the share of that time in which it does this kind of work."""

    years: Amount
    utilisation: Amount


def _kg(low: float, value: float, high: float, source: str) -> Amount:
    return Amount(value=value, low=low, high=high, unit="kg", kinds=("modelled",), source=source)


def _between(low: tuple[float, str], high: tuple[float, str]) -> Amount:
    """Two sources that disagree: their middle, and both as bounds."""
    return _kg(low[0], (low[0] + high[0]) / 2, high[0], f"low: {low[1]}; high: {high[1]}; value: their middle")


def _share(low: float, value: float, high: float, source: str) -> Amount:
    return Amount(value=value, low=low, high=high, kinds=("assumed",), source=source)


_EIGHTH = exact(0.125, "", "assumed", "one of 8 GPUs of its server")
# 10,300 kg [7,673, 16,800] with eight GPUs of 575.1 kg each
_HGX_HOST = _kg(
    3072.2,
    5700.0,
    12199.2,
    f"server of 8 GPUs without them: AWS p5.48xlarge of {_BOAVIZTA} less 8 x 575.1 kg",
)
_SERVER = _kg(460.0, 900.0, 2087.0, f"whole server with its processors: platform_compute_medium of {_BOAVIZTA}")
_GPUS = (
    _Device(
        r"\bH100\b",
        _between((164.0, _PCF), (575.1, f"{_BOAVIZTA}, H100")),
        _HGX_HOST,
        _EIGHTH,
    ),
    _Device(
        r"\bH200\b",
        _between(
            (164.0, f"the same chip with less memory: {_PCF}"),
            (1067.0, f"{_BOAVIZTA}, by 141 GB of memory"),
        ),
        _HGX_HOST,
        _EIGHTH,
    ),
    _Device(
        r"\bA100\b.*\b40GB",
        _between(
            (143.0, "Boavizta's first figure, of an A100 80 GB, as EcoLogits 1.0 cites it"),
            (321.6, f"{_BOAVIZTA}, A100 40 GB PCIe"),
        ),
        _HGX_HOST,
        _EIGHTH,
    ),
    _Device(
        r"\bL4\b",
        Amount(
            value=123.5,
            unit="kg",
            kinds=("modelled",),
            source=f"{_BOAVIZTA}, L4",
            reason="the embodied carbon of an L4 has one source only, without a range",
        ),
        _SERVER,
        _share(0.125, 0.25, 1.0, "one of 4 GPUs of its server, between one of 8 and the only one"),
    ),
)
_SERVER_CPU = re.compile(r"\b(EPYC|Xeon)\b", re.IGNORECASE)
# logical cores of a server with one or two 64-core EPYC 7763 or 9554
_FEWEST_CORES, _MOST_CORES = 128, 256
LIFETIME = Amount(
    value=4.0,
    low=3.0,
    high=6.0,
    unit="years",
    kinds=("assumed",),
    source="servers 4 years in Boavizta, GPUs 3 in Boavizta and EcoLogits, up to 6 at operators",
)
UTILISATION = Amount(
    value=0.45,
    low=0.3,
    high=0.6,
    kinds=("assumed",),
    source="servers 30 to 60 % over their life, Wu et al. 2022, arXiv:2111.00364; value: the middle",
    year="2022",
)


def life(years: float | None = None, utilisation: float | None = None) -> Life:
    return Life(
        LIFETIME if years is None else given(years, "years", "--lifetime-years", above=0.1, most=100),
        UTILISATION if utilisation is None else given(utilisation, "", "--utilisation", above=1e-6, most=1),
    )


def held(hardware: Hardware, *, kg: float | None = None, share: float | None = None) -> Held:
    """What is reserved of this hardware. `kg` is the user's footprint instead, `share` the part of the server that is held.

    Absent, with its reason, for hardware that has no cited figure.
    """
    said = None if share is None else given(share, "", "--share", above=1e-6, most=1)
    if kg is not None:
        parts = {"hardware": given(kg, "kg", "--embodied-kg")} | ({} if said is None else {"share": said})
        return Held(product("kg", list(parts.values())), parts)
    if hardware.is_gpu:
        return _held_gpu(hardware, said)
    if not _SERVER_CPU.search(hardware.name):
        return Held(_unknown(hardware), {})
    cores = said or _share_of_cores(hardware.num_cores)
    return Held(product("kg", [_SERVER, cores]), {"server": _SERVER, "share": cores})


def rate(what: Amount, over: Life) -> Amount:
    """Grams per second of work: kilograms over the seconds of its life in which it works."""
    return product(RATE_UNIT, [what, inverse(over.years, ""), inverse(over.utilisation, "")], 1000 / _SECONDS_PER_YEAR)


def _held_gpu(hardware: Hardware, said: Amount | None) -> Held:
    # the name of a GPU stands before the processor's, which may hold anything
    name = hardware.name.partition(";")[0]
    device = next((each for each in _GPUS if re.search(each.pattern, name, re.IGNORECASE)), None)
    if device is None:
        return Held(_unknown(hardware), {})
    share = said or device.share
    parts = {"gpu": device.made, "server": device.host, "share": share}
    return Held(total_of("kg", [device.made, product("kg", [device.host, share])]), parts)


def _share_of_cores(num_cores: int | None) -> Amount:
    if not num_cores:
        return absent("", "how many cores it may use was not recorded; give --share")
    low, high = min(1.0, num_cores / _MOST_CORES), min(1.0, num_cores / _FEWEST_CORES)
    middle = min(1.0, num_cores / ((_FEWEST_CORES + _MOST_CORES) / 2))
    source = (
        f"{num_cores} of the {_FEWEST_CORES} to {_MOST_CORES} logical cores of a server (EPYC 7763 or 9554, 1 or 2)"
    )
    return _share(low, middle, high, source)


def _unknown(hardware: Hardware) -> Amount:
    name = hardware.name.partition(";" if hardware.is_gpu else ",")[0]
    return absent("kg", f"no cited footprint of '{name}'; give --embodied-kg")
