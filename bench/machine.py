"""Where a bench ran, how busy that was, and how fast its Python is."""

import os
import platform
import time
from typing import Any, Final

_TURNS: Final = 1_000_000
_TRIES: Final = 5


def machine() -> dict[str, Any]:
    """Processor, cores, Python, load, and the yardstick.

    `yardstick_ms` is what a million turns of an empty Python loop take here and now, the best of
    five: milliseconds of two machines, or of two days, compare by it.
    """
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "yardstick_ms": min(_yardstick() for _ in range(_TRIES)),
    }


def said(where: dict[str, Any]) -> str:
    """The same in one line."""
    return ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in where.items()
    )


def _yardstick() -> float:
    began = time.perf_counter()
    for _ in range(_TURNS):
        pass
    return 1000 * (time.perf_counter() - began)
