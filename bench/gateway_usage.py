"""What processes use of the machine, read from /proc: CPU with all threads and descendants, memory.

CPU is counted by the kernel in steps of 10 ms for a whole process, so only differences over many
requests mean something.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM, _PARENT, _RESIDENT = 11, 12, 1, 21  # places in /proc/PID/stat behind the name
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and resident bytes of named processes, each with its descendants."""

    cpu_s: dict[str, float]
    resident: dict[str, int]

    @classmethod
    def of(cls, pids: dict[str, int]) -> "Usage":
        """As of now; a process that is no more counts nothing."""
        stats = _stats()
        families = {name: _family(pid, stats, set(pids.values())) for name, pid in pids.items()}
        return cls(
            {
                name: sum(stats[p][_USER] + stats[p][_SYSTEM] for p in family) * _TICK_S
                for name, family in families.items()
            },
            {
                name: sum(stats[p][_RESIDENT] for p in family) * _PAGE
                for name, family in families.items()
            },
        )

    def since(self, before: "Usage") -> dict[str, float]:
        """CPU seconds spent between two readings."""
        return {name: spent - before.cpu_s[name] for name, spent in self.cpu_s.items()}


def _family(pid: int, stats: dict[int, list[int]], others: set[int]) -> list[int]:
    """A process and its descendants, but those that are counted under a name of their own."""
    if pid not in stats:
        return []
    below = [p for p, stat in stats.items() if stat[_PARENT] == pid and p not in others]
    return [pid, *(deeper for child in below for deeper in _family(child, stats, others))]


def _stats() -> dict[int, list[int]]:
    """Every process's numbers behind its name; the state, a letter, stands as 0."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        found[int(path.parent.name)] = [0, *map(int, words[1:])]
    return found
