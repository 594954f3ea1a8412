"""Following a log: whose key signs for it now, by which parameters, and where it is reached.

`LogWatch` polls. The chain says which epoch is active, its key and its manifest's digest; the log's
directory delivers the manifest, the parameters and the addresses. Only what fits together is taken
over, so the directory's host can withhold and delay but not replace a coordinator. When it restarts
with new keys, the next poll finds the new epoch and whoever waits in `next_after` gets it.

Where the directory is, and where else the coordinator can be dialed, is configured or else what the
log's operator says on chain, read anew whenever the coordinator is lost. Those are anybody's words:
of them `pinaivu.endpoints` keeps what may be dialed.

A log without an active epoch has `current` None: nothing it signs is accepted then.
"""

import logging
from dataclasses import dataclass
from typing import Final

import trio

from node.errors import DirectoryUnavailable, DirectoryWrong, JobRefused
from node.ports import Chain, Directory, Publication, Published
from pinaivu.chain.records import EpochRecord, PairRecord
from pinaivu.codes import Reason
from pinaivu.endpoints import MOST, Endpoints, parse_endpoints, without_peer
from pinaivu.errors import InvalidEncoding, PeerFault, TransportFailure
from pinaivu.keys import address_of_point, peer_id_of_point, point_of_compressed
from pinaivu.manifest import Manifest, Parameters
from pinaivu.typed_data import Domain

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Epoch:
    """An active epoch that chain and directory agree about; at least one multiaddr to dial."""

    number: int
    signer: bytes
    parameters: Parameters
    addresses: tuple[str, ...]


class LogWatch:
    """One log and its present epoch. `run` must be running for it to change."""

    def __init__(
        self,
        log_id: bytes,
        url: str | None,
        *,
        domain: Domain,
        chain: Chain,
        directory: Directory,
        private: bool = False,
        poll_s: float = 2.0,
    ) -> None:
        """`url`: of the log's public server; None: as the chain says.

        `private`: what the chain says may lead into private networks, too.
        """
        self.log_id = log_id
        self.current: Epoch | None = None
        self._url = url
        self._domain = domain
        self._chain = chain
        self._directory = directory
        self._private = private
        self._poll_s = poll_s
        self._signers: dict[int, bytes] = {}
        self._doubtful = True
        self._doubted = trio.Event()
        self._changed = trio.Event()
        self._said = ""

    async def run(self) -> None:
        """Refresh every `poll_s` seconds and whenever `doubt` is called, for ever."""
        while True:
            await self._try()
            with trio.move_on_after(self._poll_s):
                await self._doubted.wait()
                await trio.sleep(self._poll_s / 10)  # who doubts again and again is not a spinner

    def doubt(self) -> None:
        """The coordinator could not be reached or lost: look at chain and directory again."""
        self._doubtful = True
        self._doubted.set()

    def require(self, number: int) -> Epoch:
        """The active epoch, if it has this number; else `JobRefused`."""
        epoch = self.current
        if epoch is None or epoch.number != number:
            have = "none" if epoch is None else str(epoch.number)
            raise JobRefused(Reason.REFUSED, f"signed in epoch {number}, active is {have}")
        return epoch

    async def next_after(self, epoch: Epoch | None) -> Epoch:
        """Wait until there is an active epoch other than `epoch`."""
        while self.current is None or self.current == epoch:
            await self._changed.wait()
        return self.current

    async def signer(self, number: int) -> bytes:
        """The key of any epoch this log has had, as the chain says.

        Raises `DirectoryWrong` for one it never had, `TransportFailure` without the chain.
        """
        if number not in self._signers:
            record = await trio.to_thread.run_sync(self._chain.epoch, self.log_id, number)
            if record is None:
                raise DirectoryWrong(f"log 0x{self.log_id.hex()} never had an epoch {number}")
            self._signers[number] = record.key
        return self._signers[number]

    async def refresh(self) -> None:
        """Read chain and, where anything may have changed, directory; take over what fits.

        Raises `TransportFailure` or `DirectoryWrong`; what was known stands then.
        """
        record = await trio.to_thread.run_sync(self._chain.active_epoch, self.log_id)
        if record is None:
            self._set(None)
            return
        known = self.current
        if known and (known.number, known.signer) == (record.number, record.key):
            if not self._doubtful:
                return
        else:
            self._set(None)  # what the ended epoch's key signs is not accepted any more
        pair = await trio.to_thread.run_sync(self._chain.pair_at, record.pair)
        places = await self._places()
        epoch = await self._first_agreed(record, pair, places)
        self._doubtful = False
        self._set(epoch)

    async def _places(self) -> Endpoints:
        """Where the log is served: as configured, else as its operator says now."""
        if self._url is not None:
            return Endpoints(urls=(self._url,))
        said = await trio.to_thread.run_sync(self._chain.log_endpoints, self.log_id)
        places = parse_endpoints(said, private=self._private)
        if not places.urls:
            raise DirectoryUnavailable(
                f"the chain names no URL for log 0x{self.log_id.hex()} that may be read: its"
                " operator has to set one, or the configuration the log's `url`"
            )
        return places

    async def _first_agreed(
        self, record: EpochRecord, pair: PairRecord, places: Endpoints
    ) -> Epoch:
        """What the first directory says that the chain confirms."""
        failures = list[DirectoryUnavailable | DirectoryWrong]()
        for url in places.urls:
            try:
                return self._agreed(record, pair, await self._directory.read(url), url, places)
            except (DirectoryUnavailable, DirectoryWrong) as error:
                failures.append(error)
        raise failures[-1]

    def _agreed(
        self,
        record: EpochRecord,
        pair: PairRecord,
        published: Published,
        url: str,
        places: Endpoints,
    ) -> Epoch:
        found = next((e for e in published.epochs if e.number == record.number), None)
        if found is None:
            raise DirectoryWrong(f"{url} does not publish the active epoch {record.number}")
        self._require_fit(record, pair, found, url)
        peer = peer_id_of_point(point_of_compressed(found.manifest.peer_key))
        addresses = dict.fromkeys((*places.under(peer), *self._own(published, peer)))
        if not addresses:
            raise DirectoryWrong(f"{url} gives no address of the active epoch's peer {peer}")
        return Epoch(record.number, record.key, found.parameters, tuple(addresses))

    def _own(self, published: Published, peer: str) -> tuple[str, ...]:
        """The coordinator's own addresses; as free as the URL's source that they come from."""
        said = [bare for text in published.addresses if (bare := without_peer(text, peer))]
        if self._url is not None:
            return Endpoints(multiaddrs=tuple(said[:MOST])).under(peer)
        return parse_endpoints(said, private=self._private).under(peer)

    def _require_fit(
        self, record: EpochRecord, pair: PairRecord, found: Publication, url: str
    ) -> None:
        manifest = found.manifest
        named = (manifest.chain_id, manifest.settlement, manifest.log_id)
        facts = (
            (manifest.digest() == record.manifest_digest, "its manifest is not the activated one"),
            (_signer(manifest) == record.key, "its signing key is not the activated one"),
            (
                named == (self._domain.chain_id, self._domain.settlement, self.log_id),
                "its manifest is of another log or deployment",
            ),
            (
                found.parameters.digest() == manifest.parameters_digest == pair.parameters_digest,
                "its parameters are not those that the chain allowed",
            ),
        )
        for fits, why in facts:
            if not fits:
                raise DirectoryWrong(f"{url}, epoch {record.number}: {why}")

    def _set(self, epoch: Epoch | None) -> None:
        if epoch == self.current:
            return
        self.current = epoch
        if epoch is not None:
            self._signers[epoch.number] = epoch.signer
        _logger.info("log 0x%s: epoch %s", self.log_id.hex(), epoch.number if epoch else "none")
        self._changed.set()
        self._changed = trio.Event()

    async def _try(self) -> None:
        self._doubted = trio.Event()
        try:
            await self.refresh()
        except (TransportFailure, PeerFault, InvalidEncoding) as error:
            if str(error) != self._said:  # once per cause, not once per poll
                _logger.warning("log 0x%s: %s", self.log_id.hex(), error)
            self._said = str(error)
        else:
            self._said = ""


def _signer(manifest: Manifest) -> bytes:
    return address_of_point(point_of_compressed(manifest.signing_key))
