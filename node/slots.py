"""A model's slots, divided among the logs a node serves, so that no slot is offered twice.

An offer is a firm bid, and each log counts only its own awards against it; a slot offered to two
logs could be sold twice. Each log therefore gets a fixed share; what does not divide evenly goes
to the logs named first. Not a queue: who finds no free slot is refused.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from node.errors import JobRefused
from pinaivu.codes import Reason


def divide(slots: int, logs: Sequence[bytes]) -> dict[bytes, int]:
    """Each log's share of `slots`; 0 for the last ones where there are fewer slots than logs."""
    each, rest = divmod(slots, len(logs)) if logs else (0, 0)
    return {log_id: each + (place < rest) for place, log_id in enumerate(logs)}


class Slots:
    """One model's slots and who holds them."""

    def __init__(self, slots: int, logs: Sequence[bytes]) -> None:
        self.total = slots
        self._shares = divide(slots, logs)
        self._held: Counter[bytes] = Counter()

    def share(self, log_id: bytes) -> int:
        """Jobs at once for this log: what its offers name."""
        return self._shares.get(log_id, 0)

    def free(self, log_id: bytes) -> int:
        """How many of them are not held now."""
        return self.share(log_id) - self._held[log_id]

    @contextmanager
    def hold(self, log_id: bytes) -> Iterator[None]:
        """Hold one slot for the block; `JobRefused` (capacity) where the log has none free."""
        if self.free(log_id) <= 0:
            raise JobRefused(
                Reason.REFUSED_CAPACITY,
                f"all {self.share(log_id)} slots for this log are taken",
            )
        self._held[log_id] += 1
        try:
            yield
        finally:
            self._held[log_id] -= 1
