"""Energy of this machine's processors: RAPL's counters where they can be read, else an estimate from the seconds."""

import time
from dataclasses import dataclass
from pathlib import Path

from riyaz import hardware

POWERCAP = "sys/class/powercap"
WATTS = 8.0  # of a core that computes: of server processors of 16 to 64 cores their 120 to 350 W, divided
ESTIMATED = f"Energy is estimated at {WATTS:g} W for each core that computes: this machine's counters cannot be read."
MEASURED = "Energy is that of the processors alone, by their own counters (RAPL), with whatever else ran on them."


@dataclass(frozen=True)
class Used:
    """Seconds and joules of some work; `measured` by counters, or else estimated."""

    seconds: float
    joules: float
    measured: bool


class Meter:
    """Counts from its making to `stop`; `root` is "/" except in tests."""

    def __init__(self, root: Path = hardware.ROOT) -> None:
        self._root, self._began, self._before = root, time.perf_counter(), counters(root)

    def stop(self) -> Used:
        """What was used since the meter was made."""
        seconds, after = time.perf_counter() - self._began, counters(self._root)
        if not self._before or after.keys() != self._before.keys():
            return Used(seconds, seconds * WATTS * hardware.threads(), False)
        joules = 0.0
        for folder, (energy, span) in after.items():
            used = energy - self._before[folder][0]
            joules += (used if used >= 0 else used + span) / 1e6  # the counter begins anew at its span
        return Used(seconds, joules, True)


def counters(root: Path) -> dict[str, tuple[int, int]]:
    """Microjoules of every processor and the span of its counter; empty where one cannot be read."""
    by_name = {}
    for folder in sorted((root / POWERCAP).glob("intel-rapl:[0-9]*")):
        if folder.name.count(":") > 1:  # a part of a processor, which is in its figure
            continue
        try:
            by_name[folder.name] = (
                int((folder / "energy_uj").read_text()),
                int((folder / "max_energy_range_uj").read_text()),
            )
        except (OSError, ValueError):
            return {}
    return by_name
