"""Epochs of this log: which keys the chain knows, this boot's activation, and its end.

The store's epoch rows lie with the host, who could put a key of its own among them. So each is
compared with the chain: the key, and by digests the manifest and the parameters, whose fees earlier
awards are still billed by.
"""

import logging

import trio
from sqlmodel import Session, select

from coordinator.errors import LogDiverged
from coordinator.ports import ChainView, EpochRecord
from pinaivu.encoding import jcs
from pinaivu.epoch_identity import EpochIdentity
from pinaivu.errors import TransportFailure
from pinaivu.manifest import Manifest, Parameters
from pinaivu.store.coordinator import EpochRow

_ACTIVATION_POLL_S = 0.25
_EPOCH_LOOK_S = 2.0
_logger = logging.getLogger(__name__)


def epoch_row(identity: EpochIdentity, number: int) -> EpochRow:
    """What is published and stored of a boot."""
    return EpochRow(
        number=number,
        signer=identity.signing_secret.address,
        manifest=jcs(identity.manifest.to_json()).decode(),
        parameters=jcs(identity.parameters.to_json()).decode(),
        document=identity.document,
    )


def known_signers(session: Session, view: ChainView, log_id: bytes) -> dict[int, bytes]:
    """The keys of the stored epochs; `LogDiverged` where one is not as the chain activated it."""
    return {row.number: _signer(row, view, log_id) for row in session.exec(select(EpochRow))}


def _signer(row: EpochRow, view: ChainView, log_id: bytes) -> bytes:
    manifest = Manifest.from_jcs(row.manifest.encode())
    parameters = Parameters.from_jcs(row.parameters.encode())
    on_chain = view.epoch(log_id, row.number)
    if (
        on_chain is None
        or (row.signer, manifest.digest()) != (on_chain.key, on_chain.manifest_digest)
        or parameters.digest() != manifest.parameters_digest
    ):
        raise LogDiverged(
            f"epoch {row.number} of the database is not the one on chain: restore a copy"
        )
    return row.signer


def parameters_by_epoch(session: Session) -> dict[int, Parameters]:
    """The rules of every stored epoch."""
    return {
        row.number: Parameters.from_jcs(row.parameters.encode())
        for row in session.exec(select(EpochRow))
    }


async def activation(view: ChainView, log_id: bytes, key: bytes) -> EpochRecord:
    """Wait for the chain to activate this boot's key."""
    while True:
        try:
            found = await trio.to_thread.run_sync(view.active_epoch, log_id)
        except TransportFailure as error:
            _logger.warning("the chain can't be read: %s", error)
            found = None
        if found is not None and found.key == key:
            return found
        await trio.sleep(_ACTIVATION_POLL_S)


async def watch(view: ChainView, log_id: bytes, ours: EpochRecord) -> None:
    """For ever; `LogDiverged` once a later boot has taken over: what this one signs is void."""
    while True:
        await trio.sleep(_EPOCH_LOOK_S)
        try:
            found = await trio.to_thread.run_sync(view.active_epoch, log_id)
        except TransportFailure:
            continue
        if found is not None and found.number > ours.number:
            raise LogDiverged(f"epoch {found.number} has ended this one: nothing is signed now")
