"""The jobs receipted a little while ago: one that comes again is known without the store.

A job is admitted only within the allowed skew of the time it says it was created. So whatever may
be admitted a second time was receipted within twice that; what is older need not be remembered.
"""

from collections import OrderedDict


class Recent:
    """Keys and when each was closed; in the order of closing."""

    def __init__(self, keep_ms: int) -> None:
        self._keep_ms = keep_ms
        self._closed: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()

    def note(self, key: tuple[bytes, bytes], closed_ms: int) -> None:
        """A job has been receipted; those closed `keep_ms` before it, or earlier, are forgotten."""
        self._closed[key] = closed_ms
        while next(iter(self._closed.values())) < closed_ms - self._keep_ms:
            self._closed.popitem(last=False)

    def __contains__(self, key: tuple[bytes, bytes]) -> bool:
        return key in self._closed
