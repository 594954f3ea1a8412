"""The ports of `gateway.ports` over chain and HTTP.

The chain names the epoch's key and its manifest's digest; the coordinator's `/attestation` hands
out the manifest and parameters, which are believed because they hash to what the chain holds. That
an attestation stands behind them was checked by whoever let the chain accept the epoch, and can be
checked again by `pinaivu verify`; it is not checked here.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import httpx
import msgspec
import trio
from msgspec import Struct

from gateway.config import ModelFiles
from gateway.places import Places
from gateway.ports import Epoch, ServedModel, Standing, UnknownParty
from pinaivu.chain.client import ChainClient
from pinaivu.encoding import UNREADABLE, to_hex
from pinaivu.errors import InvalidEncoding, Misconfigured, PeerFault, TransportFailure
from pinaivu.keys import address_of_point, peer_id_of_point, point_of_compressed
from pinaivu.manifest import Manifest, Parameters
from pinaivu.p2p import PeerId
from pinaivu.tokens import Tokenizer

_BELIEVED_S: Final = 60.0
_MARKET_S: Final = 3.0
_NOT_FOUND: Final = 404
_WITHIN_S: Final = 20.0
_BUNDLE_BYTES: Final = 64 << 20  # a bundle holds every offer of its auction
_DOCUMENT_BYTES: Final = 4 << 20
T = TypeVar("T")


class LogUnreachable(TransportFailure):
    """The coordinator's public server gave no usable answer."""


class ForgedManifest(PeerFault):
    """What the coordinator publishes about itself is not what the chain holds."""


class _Gateway(Struct):
    gateway: str


class _Signed(Struct):
    message: _Gateway


class _Settled(Struct):
    receipt: _Signed
    settlement: dict[str, Any]


class _Receipts(Struct):
    receipts: list[_Settled]


class _Epoch(Struct):
    number: int
    manifest: Any = None
    parameters: Any = None


class _Published(Struct):
    epochs: list[_Epoch] = []
    addresses: list[str] = []


class LogServer:
    """A `PublicLog` over HTTP, at the first of the log's URLs that answers."""

    def __init__(self, http: httpx.AsyncClient, places: Places) -> None:
        self._http = http
        self._places = places
        self._market: dict[str, tuple[float, Standing | None]] = {}

    async def bundle(self, gateway: bytes, request_id: str) -> bytes | None:
        """The public bundle, or None while there is none."""
        return await self._get(f"/bundles/{to_hex(gateway)}/{request_id}", _BUNDLE_BYTES)

    async def settlement(self, gateway: bytes, request_id: str) -> dict[str, Any]:
        """How far the settlement of our job of this id has come."""
        found = await self.document(f"/receipts/{request_id}", _Receipts)
        for entry in found.receipts if found else ():
            if entry.receipt.message.gateway == to_hex(gateway):
                return entry.settlement
        return {"state": "logged"}

    async def market(self, model: str) -> Standing | None:
        """What stands on offer for a model; believed for a few seconds."""
        known = self._market.get(model)
        if known and trio.current_time() - known[0] < _MARKET_S:
            return known[1]
        standing = await self.document(f"/market/{quote(model)}", Standing)
        self._market[model] = (trio.current_time(), standing)
        return standing

    async def urls(self) -> tuple[str, ...]:
        """Where the log is published."""
        return tuple(await self._places.urls())

    async def document(self, path: str, kind: type[T]) -> T | None:
        """What a page says, as `kind`; None where there is no such page."""
        answer = await self._get(path, _DOCUMENT_BYTES)
        if answer is None:
            return None
        try:
            return await _in_thread(lambda: msgspec.json.decode(answer, type=kind))
        except UNREADABLE as error:
            raise LogUnreachable(f"{path} of the log is no such document: {error}") from error

    async def _get(self, path: str, most: int) -> bytes | None:
        failures = list[LogUnreachable]()
        for url in await self._places.urls():
            try:
                return await self._get_from(url.rstrip("/") + path, most)
            except LogUnreachable as error:
                failures.append(error)
        self._places.doubt()
        raise failures[-1]

    async def _get_from(self, url: str, most: int) -> bytes | None:
        """A whole answer, bounded in time and size: the server may be anybody's."""
        try:
            with trio.fail_after(_WITHIN_S):
                async with self._http.stream("GET", url) as answer:
                    if answer.status_code == _NOT_FOUND:
                        return None
                    if not answer.is_success:
                        raise LogUnreachable(f"{url} answered {answer.status_code}")
                    return await _bounded(answer, most)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            why = str(error) or type(error).__name__
            raise LogUnreachable(f"{url} can't be reached: {why}") from error


class ChainRegistry:
    """A `Registry` over the contracts; reads are synchronous, in worker threads."""

    def __init__(self, client: ChainClient, log_id: bytes, log: LogServer, places: Places) -> None:
        self._client = client
        self._log_id = log_id
        self._log = log
        self._places = places
        self._dials = 0
        self._epoch: Epoch | None = None
        self._advertised: list[str] = []
        self._signers: dict[int, tuple[float, bytes]] = {}
        self._peers: dict[bytes, tuple[float, PeerId]] = {}

    async def refresh(self) -> Epoch:
        """The active epoch: key from the chain, the rest hashed against it."""
        record = await _in_thread(lambda: self._client.active_epoch(self._log_id))
        if record is None:
            raise LogUnreachable(f"log {to_hex(self._log_id)} has no active epoch on chain yet")
        published = await self._log.document("/attestation", _Published) or _Published()
        manifest, parameters = _manifest_of(published, record.number)
        if manifest.digest() != record.manifest_digest or manifest.log_id != self._log_id:
            raise ForgedManifest("the published manifest is not the one on chain")
        if parameters.digest() != manifest.parameters_digest:
            raise ForgedManifest("the published parameters are not the manifest's")
        if address_of_point(point_of_compressed(manifest.signing_key)) != record.key:
            raise ForgedManifest("the manifest names another key than the chain")
        peer = PeerId(peer_id_of_point(point_of_compressed(manifest.peer_key)))
        pair = await _in_thread(lambda: self._client.pair_at(record.pair))
        self._advertised = published.addresses
        self._epoch = Epoch(
            number=record.number,
            signer=record.key,
            peer=peer,
            parameters=parameters,
            measurement=pair.measurement,
        )
        return self._epoch

    async def epoch(self) -> Epoch:
        """The active epoch as last read."""
        return self._epoch or await self.refresh()

    async def coordinator_address(self) -> str:
        """Where to dial the coordinator of the epoch that is active now, peer id included.

        Asked before each attempt: several places take turns, and the chain is read again.
        """
        self._places.doubt()
        epoch = await self.refresh()
        found = await self._places.coordinators(epoch.peer, self._advertised)
        if not found:
            raise LogUnreachable("the coordinator advertises no address under its attested key")
        self._dials += 1
        return found[(self._dials - 1) % len(found)]

    async def signer(self, epoch: int) -> bytes:
        """The key of an epoch that wasn't revoked; believed for a minute."""
        known = self._signers.get(epoch)
        if known and trio.current_time() - known[0] < _BELIEVED_S:
            return known[1]
        record = await _in_thread(lambda: self._client.epoch(self._log_id, epoch))
        if record is None or record.revoked_at_ms:
            raise UnknownParty(f"epoch {epoch} of this log is unknown or revoked")
        self._signers[epoch] = (trio.current_time(), record.key)
        return record.key

    async def settles(self, sequence: int, index: int) -> bool:
        """Whether a final block holds this batch's anchor, and the leaf lies within it.

        That the leaf is the receipt's is a matter of Merkle proofs: `pinaivu verify`, V10.
        """
        behind = (await self.epoch()).parameters.finality_blocks

        def read() -> bool:
            final = max(0, self._client.head() - behind)
            if self._client.log_state(self._log_id, final).sequence < sequence:
                return False
            anchor = self._client.anchor(self._log_id, sequence, final)
            return anchor.prev_size <= index < anchor.new_size

        return await _in_thread(read)

    async def node_peer(self, node: bytes) -> PeerId:
        """The registered peer of a node; believed for a minute, and on when the chain is down."""
        known = self._peers.get(node)
        if known and trio.current_time() - known[0] < _BELIEVED_S:
            return known[1]
        try:
            record = await _in_thread(lambda: self._client.node(node))
        except TransportFailure:
            if known:
                return known[1]
            raise
        if record is None:
            raise UnknownParty(f"node {to_hex(node)} is not registered")
        self._peers[node] = (trio.current_time(), PeerId(record.peer_id))
        return PeerId(record.peer_id)


def load_models(client: ChainClient, files: list[ModelFiles]) -> dict[str, ServedModel]:
    """The models of the configuration, each with the registry's terms and tokenizer.

    Synchronous and slow. Raises `Misconfigured` where a file is missing or isn't the registered
    one: counts by another tokenizer would be refused by every node.
    """
    models = {}
    for entry in files:
        record = client.model(entry.name)
        if record is None:
            raise Misconfigured(
                f"model {entry.name!r} is not in the model registry; register it or remove it"
            )
        try:
            template = entry.chat_template_file.read_text(encoding="utf-8")
            tokenizer = Tokenizer(entry.tokenizer_file.read_bytes(), template)
        except OSError as error:
            raise Misconfigured(f"can't read {error.filename}: {error.strerror}") from error
        if tokenizer.digest != record.tokenizer_digest:
            raise Misconfigured(
                f"the tokenizer files of {entry.name!r} have digest {to_hex(tokenizer.digest)}, the"
                f" registry names {to_hex(record.tokenizer_digest)}; use the registered files"
            )
        models[entry.name] = ServedModel(
            name=entry.name,
            fingerprint=record.fingerprint,
            ratio_ppm=record.ratio_ppm,
            context_tokens=record.context_tokens,
            tokenizer=tokenizer,
        )
    return models


async def _bounded(answer: httpx.Response, most: int) -> bytes:
    parts, size = list[bytes](), 0
    async with aclosing(cast("AsyncGenerator[bytes]", answer.aiter_bytes())) as content:
        async for part in content:
            size += len(part)
            if size > most:
                raise LogUnreachable(f"{answer.url} is longer than {most} bytes")
            parts.append(part)
    return b"".join(parts)


def _manifest_of(published: _Published, number: int) -> tuple[Manifest, Parameters]:
    for epoch in published.epochs:
        if epoch.number == number:
            try:
                return Manifest.from_json(epoch.manifest), Parameters.from_json(epoch.parameters)
            except InvalidEncoding as error:
                raise ForgedManifest(f"the published manifest is none: {error}") from error
    raise LogUnreachable(f"the coordinator does not publish epoch {number} yet")


async def _in_thread(read: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(read)
