"""Keys that are known until a time, in memory: `Remembered`.

    seen = Remembered()
    seen.note(key, until_ms=now_ms + 60_000, now_ms=now_ms)
    key in seen

Times are to come in about the order of the notes: what stands behind a key whose time has not come
is kept a little longer. How much is kept is up to how often and for how long one notes.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Remembered(Generic[K]):
    """A set whose members leave by themselves."""

    def __init__(self) -> None:
        self._until: OrderedDict[K, int] = OrderedDict()

    def note(self, key: K, *, until_ms: int, now_ms: int) -> None:
        """Know a key until then; keys whose time is over are forgotten."""
        self._until[key] = until_ms
        while self._until and next(iter(self._until.values())) < now_ms:
            self._until.popitem(last=False)

    def __contains__(self, key: K) -> bool:
        return key in self._until

    def __len__(self) -> int:
        return len(self._until)
