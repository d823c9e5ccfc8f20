"""Energy of a run in joules: measured by the machine's counters, estimated from watts, or unavailable."""

import contextlib
import logging
import math
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from shoestring.cost.footprint import estimate_formula, estimated_joules
from shoestring.errors import ConfigError

log = logging.getLogger(__name__)

# A package counter wraps after about 262 kJ, 20 minutes at 200 W: reading it this often misses none.
INTERVAL_S = 5.0
_POWERCAP, _HWMON = Path("/sys/class/powercap"), Path("/sys/class/hwmon")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """`joules` is None exactly when `how` is "unavailable"; `detail` says what was counted, or why not."""

    joules: float | None
    how: Literal["measured", "estimated", "unavailable"]
    detail: str


def combine(first: Energy, second: Energy) -> Energy:
    """The energy of two parts of one run; their sum is measured only if both are."""
    if first.joules is None or second.joules is None:
        missing = first if first.joules is None else second
        return Energy(joules=None, how="unavailable", detail=f"for a part of the run: {missing.detail}")
    worse = first if first.how == "estimated" else second
    detail = worse.detail if first.detail == second.detail else f"{first.detail}; {second.detail}"
    return Energy(joules=first.joules + second.joules, how=worse.how, detail=detail)


class EnergyMeter:
    """Counts from entering the `with` block, in a thread that reads the counters every few seconds.

    `gpus` names the GPUs in use (index or UUID, as `nvidia-smi -i` takes them). If every one of them, or with
    no GPU the machine's own power meter (hwmon) or the processor's RAPL counters, can be read, the result is
    measured. Else it is `watts` times the time, if watts were stated; else, for `is_estimated` and without
    GPUs, by the formula of cost/footprint.py, whose factors the detail states; else unavailable.
    """

    def __init__(
        self,
        *,
        watts: float | None = None,
        gpus: tuple[str, ...] = (),
        is_estimated: bool = False,
        interval_s: float = INTERVAL_S,
        powercap: Path = _POWERCAP,
        hwmon: Path = _HWMON,
        nvidia_smi: str = "nvidia-smi",
    ) -> None:
        if watts is not None and not (math.isfinite(watts) and watts > 0):
            raise ConfigError(f"watts = {watts}: the machine's draw is a number above 0, or left out")
        self._watts = watts
        self._interval_s = interval_s
        self._is_estimated = is_estimated
        self._cpu = RaplCounter(powercap)
        self._machine = PowerMeter(hwmon)
        self._gpu = GpuCounter(gpus, nvidia_smi)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._started_at = time.monotonic()
        self._ended_at: float | None = None
        self._core_s = time.process_time()
        self._core_s_at_end: float | None = None

    def __enter__(self) -> Self:
        self._started_at, self._core_s = time.monotonic(), time.process_time()
        self._read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        self._ended_at, self._core_s_at_end = time.monotonic(), time.process_time()

    def read(self) -> Energy:
        """The energy since the block was entered; inside it as of the last reading, after it the whole."""
        return self._energy(self._gpu.joules)

    def read_now(self) -> Energy:
        """The energy until this moment: GPUs count as if they drew what they drew at the last reading."""
        with self._lock:
            self._cpu.read()
        return self._energy(self._gpu.joules_now)

    def _energy(self, gpu: float | None) -> Energy:
        seconds = (self._ended_at or time.monotonic()) - self._started_at
        cpu = self._cpu.joules
        if self._gpu.gpus and gpu is not None:
            processor = (
                "with the processor (RAPL)" if cpu is not None else "without the processor (RAPL unreadable)"
            )
            detail = f"{len(self._gpu.gpus)} GPU (nvidia-smi power draw), {processor}"
            return Energy(joules=gpu + (cpu or 0.0), how="measured", detail=detail)
        if not self._gpu.gpus and self._machine.joules is not None:
            detail = "the whole machine (hwmon power meter)"
            return Energy(joules=self._machine.joules, how="measured", detail=detail)
        if not self._gpu.gpus and cpu is not None:
            return Energy(joules=cpu, how="measured", detail="processor and memory (RAPL), not the rest")
        why = "nvidia-smi gives no power draw" if self._gpu.gpus else "the RAPL counters cannot be read"
        if self._watts is not None:
            detail = f"{self._watts:g} W as stated, times the time; {why}"
            return Energy(joules=self._watts * seconds, how="estimated", detail=detail)
        if self._is_estimated and not self._gpu.gpus and hasattr(os, "sched_getaffinity"):
            cores, memory = (
                len(os.sched_getaffinity(0)),
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            )
            core_s = (self._core_s_at_end or time.process_time()) - self._core_s
            joules = estimated_joules(seconds, core_s, cores=cores, memory_bytes=memory)
            detail = f"{estimate_formula(cores, memory)}; {why}, and no watts were stated"
            return Energy(joules=joules, how="estimated", detail=detail)
        return Energy(joules=None, how="unavailable", detail=f"{why}, and no watts were stated")

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._read()

    def _read(self) -> None:
        with self._lock:
            self._cpu.read()
            self._machine.read()
        self._gpu.read()


class PowerMeter:
    """Joules of the whole machine by its ACPI power meter, which Linux shows in hwmon; None without one."""

    def __init__(self, hwmon: Path = _HWMON) -> None:
        self.joules: float | None = None
        self._last: tuple[float, float] | None = None
        self._files = [
            folder / "power1_average" for folder in sorted(hwmon.glob("hwmon*")) if _is_power_meter(folder)
        ]

    def read(self) -> None:
        """Add the trapezoid since the last reading; a failure makes the total unknown for good."""
        if not self._files:
            return
        try:
            watts = sum(int(file.read_text()) for file in self._files) / 1e6
        except (OSError, ValueError):
            self._files, self.joules = [], None
            return
        now = time.monotonic()
        if self._last is not None:
            then, watts_then = self._last
            self.joules = (self.joules or 0.0) + (watts + watts_then) / 2 * (now - then)
        self._last = (now, watts)


def _is_power_meter(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return (folder / "name").read_text().strip() == "power_meter"
    return False


class RaplCounter:
    """Joules of the processor packages and their memory, from Linux powercap (Intel and AMD alike).

    `joules` is None unless every one can be read; without root that is the rule since CVE-2020-8694.
    """

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        self.joules: float | None = None
        self._last: dict[Path, int] = {}
        self._zones = sorted(zone for zone in powercap.glob("intel-rapl:*") if _is_counted(zone))

    def read(self) -> None:
        for zone in self._zones:
            try:
                now = int((zone / "energy_uj").read_text())
                largest = int((zone / "max_energy_range_uj").read_text())
            except (OSError, ValueError):
                self._zones, self.joules = [], None
                return
            last = self._last.get(zone, now)
            step = now - last if now >= last else now - last + largest
            self._last[zone] = now
            self.joules = (self.joules or 0.0) + step / 1e6


def _is_counted(zone: Path) -> bool:
    """Packages and memory; core and uncore are parts of a package, and psys contains it."""
    with contextlib.suppress(OSError):
        name = (zone / "name").read_text().strip()
        return name.startswith("package") or name == "dram"
    return False


class GpuCounter:
    """Joules of the named NVIDIA GPUs: power draw, integrated over time; `joules` is None without it."""

    def __init__(self, gpus: tuple[str, ...], nvidia_smi: str = "nvidia-smi") -> None:
        self.gpus = gpus
        self.joules: float | None = None
        self._command = [
            nvidia_smi,
            "--query-gpu=power.draw",
            "--format=csv,noheader,nounits",
            "-i",
            ",".join(gpus),
        ]
        self._last: tuple[float, float] | None = None
        self._works = bool(gpus)

    @property
    def joules_now(self) -> float | None:
        """`joules`, with the power of the last reading from then on."""
        if not self._works or self._last is None:
            return self.joules
        then, watts = self._last
        return (self.joules or 0.0) + watts * (time.monotonic() - then)

    def read(self) -> None:
        """Add the trapezoid since the last reading; a failure makes the total unknown for good."""
        if not self._works:
            return
        watts = self._watts()
        if watts is None:
            log.warning("nvidia-smi gives no power draw; the energy of this run is not measured")
            self._works, self.joules = False, None
            return
        now = time.monotonic()
        if self._last is not None:
            then, watts_then = self._last
            self.joules = (self.joules or 0.0) + (watts + watts_then) / 2 * (now - then)
        self._last = (now, watts)

    def _watts(self) -> float | None:
        try:
            result = subprocess.run(self._command, capture_output=True, text=True, timeout=10, check=True)
            draws = [float(line) for line in result.stdout.split()]
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
        return sum(draws) if len(draws) == len(self.gpus) and all(map(math.isfinite, draws)) else None
