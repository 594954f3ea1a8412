"""Files with the batches that a party of a log was handed: what settles them without the operator.

    <folder>/0x<log id>/<sequence>.json

Each file is one `BatchCopy`, as `pinaivu submit` reads it. A file stands as a whole or not at all,
and stays through a power cut once `keep` has returned. `MOST_COPIES` of a log are kept, the newest:
many times what can be unsettled at once, since a log signs its next batch when the one before it is
mined. The order is believed to the log's key: what it signs can push older files out.
"""

import json
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from pinaivu.batch_copies import BatchCopy, WrongCopy
from pinaivu.encoding import parse_json
from pinaivu.errors import InvalidEncoding, PinaivuError, TransportFailure
from pinaivu.messages import Batch
from pinaivu.typed_data import Domain

MOST_COPIES: Final = 128
_SUFFIX: Final = ".json"
_logger = logging.getLogger(__name__)

SignerOf = Callable[[int], Awaitable[bytes]]
"""An epoch's number to its key on chain; raises where the log never had it."""


class CopyNotKept(TransportFailure):
    """The disk refused; the file may or may not be there, and keeping it again does no harm."""


class BatchFolder:
    """The files of one log; one thread at a time."""

    def __init__(self, root: Path, log_id: bytes) -> None:
        self.path = root / f"0x{log_id.hex()}"

    def keep(self, copy: BatchCopy) -> None:
        """Make a checked copy durable; keeping it again is no change.

        One of a later epoch, or signed later in it, takes the place of another of its number.
        Raises `WrongCopy` where a newer one stands or all that are kept are of higher numbers,
        `CopyNotKept` where the disk refuses.
        """
        try:
            self._keep(copy)
        except OSError as error:
            raise CopyNotKept(f"batch {copy.batch.sequence} was not kept: {error}") from error

    def sequences(self) -> list[int]:
        """The numbers of the batches that are here, ascending."""
        names = (path.name.removesuffix(_SUFFIX) for path in self.path.glob(f"*{_SUFFIX}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def _keep(self, copy: BatchCopy) -> None:
        batch, standing = copy.batch, self._read(copy.batch.sequence)
        if standing is not None and standing.batch == batch:
            self._sync()  # the names may not have reached the disk when it was written
            return
        if standing is not None and _signed_at(standing.batch) >= _signed_at(batch):
            raise WrongCopy(
                f"another batch {batch.sequence}, signed in epoch {standing.batch.epoch}, is here"
            )
        newest = self.sequences()[-MOST_COPIES:]
        if len(newest) == MOST_COPIES and batch.sequence < newest[0]:
            raise WrongCopy(f"batch {batch.sequence} is older than the {MOST_COPIES} kept")
        self._write(copy)
        for sequence in self.sequences()[:-MOST_COPIES]:
            self._file(sequence).unlink(missing_ok=True)

    def _read(self, sequence: int) -> BatchCopy | None:
        """What stands; None too for what somebody has damaged."""
        try:
            return BatchCopy.from_json(parse_json(self._file(sequence).read_bytes()))
        except (FileNotFoundError, InvalidEncoding):
            return None

    def _write(self, copy: BatchCopy) -> None:
        """All of it or nothing: a file aside, then its name; both reach the disk."""
        self.path.mkdir(parents=True, exist_ok=True)
        part = self.path / "part"
        with part.open("wb") as file:
            file.write(json.dumps(copy.to_json()).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._file(copy.batch.sequence))
        self._sync()

    def _sync(self) -> None:
        for folder in (self.path, self.path.parent):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _file(self, sequence: int) -> Path:
        return self.path / f"{sequence}{_SUFFIX}"


def _signed_at(batch: Batch) -> tuple[int, int]:
    return batch.epoch, batch.time_ms


class BatchKeeper:
    """Takes what a coordinator hands over for one log, checks it and keeps it."""

    def __init__(self, root: Path, domain: Domain, log_id: bytes, signer: SignerOf) -> None:
        self.folder = BatchFolder(root, log_id)
        self._domain = domain
        self._log_id = log_id
        self._signer = signer
        self._turn = trio.CapacityLimiter(1)

    async def keep(self, batch: bytes, consistency: Sequence[bytes]) -> None:
        """Durable when it returns.

        Raises `InvalidEncoding` or `PeerFault` for what is no batch of the log with its proof,
        `TransportFailure` where key or disk can't be reached: the coordinator comes again then.
        """
        try:
            copy = BatchCopy.from_bytes(batch, consistency)
            copy.check(self._domain, self._log_id, await self._signer(copy.batch.epoch))
            await trio.to_thread.run_sync(self.folder.keep, copy, limiter=self._turn)
        except PinaivuError as error:
            _logger.warning("a batch of log 0x%s is not kept: %s", self._log_id.hex(), error)
            raise
