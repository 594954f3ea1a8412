"""Answers that are handed over at once and verified beside: what is still open, what failed."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Final

from msgspec import Struct

from pinaivu.client.errors import UNVERIFIED, AnswerUnproven, Unverified
from pinaivu.errors import PinaivuError

_WORKERS: Final = 4


class Open(Struct, frozen=True):
    """An answer that is not verified; `error` says why it never will be, None: not yet."""

    request_id: str
    error: Unverified | None = None


class Later:
    """Verifies in a few threads of its own; may be used from any thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="pinaivu-verify")
        self._lock = threading.Lock()
        self._open: dict[str, Future[None]] = {}

    def put(self, request_id: str, verify: Callable[[], None]) -> None:
        """Have an answer verified; it counts as open until `verify` has returned."""
        with self._lock:
            self._open[request_id] = self._pool.submit(verify)

    def unverified(self) -> list[Open]:
        """Answers that are not verified yet, and those that never will be, oldest first."""
        with self._lock:
            judged = [(request_id, _judged(future)) for request_id, future in self._open.items()]
            for request_id, found in judged:
                if found is True:
                    del self._open[request_id]
        return [
            Open(request_id, None if isinstance(found, bool) else found)
            for request_id, found in judged
            if found is not True
        ]

    def require(self, within_s: float) -> None:
        """Wait until all answers so far are judged; raise the first reason against one."""
        with self._lock:
            waiting = list(self._open.values())
        wait(waiting, within_s)
        for one in self.unverified():
            raise one.error or AnswerUnproven(
                f"request {one.request_id} is not verified after {within_s} s"
            )

    def close(self) -> None:
        """Begin nothing any more; what was not begun stays unverified."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _judged(future: Future[None]) -> bool | Unverified:
    """True: verified; False: not yet; else why not."""
    if not future.done():
        return False
    try:
        future.result()
    except CancelledError:
        return AnswerUnproven("the client was closed before the answer was verified")
    except PinaivuError as error:
        return error if isinstance(error, UNVERIFIED) else AnswerUnproven(str(error))
    return True
