"""Server-sent events out of the bytes of a response: only their `data`, as it was sent.

Comments, event names, ids and retry times are dropped; OpenAI's streams don't use them. Payloads
are not parsed: most of them are relayed as they are.
"""

from typing import Final

_MAX_EVENT_BYTES: Final = 4 << 20


class EventTooLong(ValueError):
    """An event is longer than 4 MiB."""


class EventDecoder:
    """Collects bytes as they arrive and gives the payloads that became complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Payloads of the events that `chunk` completes. Raises `EventTooLong`."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        payloads = []
        for line in lines:
            text = line.removesuffix(b"\r")
            if text.startswith(b"data:"):
                self._hold(text[5:].removeprefix(b" "))
            elif not text and self._data:
                payloads.append(b"\n".join(self._data))
                self._data, self._held_bytes = [], 0
        self._check(len(self._rest))
        return payloads

    def _hold(self, value: bytes) -> None:
        self._data.append(value)
        self._held_bytes += len(value)
        self._check(0)

    def _check(self, more: int) -> None:
        if self._held_bytes + more > _MAX_EVENT_BYTES:
            raise EventTooLong(f"an event is longer than {_MAX_EVENT_BYTES} bytes")
