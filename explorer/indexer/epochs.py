"""Who signs: the epochs that the log shows, each compared with its registration on chain."""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct
from sqlmodel import Session, select

from pinaivu.checkpoints import CheckpointKeys
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import checksum
from pinaivu.manifest import Manifest
from pinaivu.store.explorer import EpochRow
from pinaivu.typed_data import Domain
from pinaivu.verify.facts import EpochFact


class EpochFacts(Protocol):
    """The part of `pinaivu.verify.ChainFacts` that is needed here."""

    def epoch(self, log_id: bytes, number: int) -> EpochFact | None:
        """An epoch's registration; None if the chain has none; `TransportFailure`."""
        ...


class Epoch(Struct, kw_only=True):
    """An epoch's keys by its manifest; `trouble` says why they are not the registered ones."""

    number: int
    manifest: Manifest
    first_position: int | None = None
    trouble: str = ""

    @property
    def keys(self) -> CheckpointKeys:
        """What its checkpoints are signed with."""
        return CheckpointKeys(self.manifest.signing_key, self.manifest.note_key)


def load_epochs(session: Session) -> dict[int, Epoch]:
    """The epochs in the database, by number."""
    return {
        row.number: Epoch(
            number=row.number,
            manifest=Manifest.from_jcs(row.manifest.encode()),
            first_position=row.first_position,
            trouble=row.trouble,
        )
        for row in session.exec(select(EpochRow))
    }


def save_epoch(session: Session, epoch: Epoch) -> None:
    """Insert or update an epoch."""
    session.merge(
        EpochRow(
            number=epoch.number,
            signer=epoch.keys.signer,
            manifest=epoch.manifest.to_jcs().decode(),
            first_position=epoch.first_position,
            trouble=epoch.trouble,
        )
    )


def read_epoch(shown: Mapping[str, Any], domain: Domain, log_id: bytes, chain: EpochFacts) -> Epoch:
    """An epoch as ``/attestation`` shows it, judged by the chain.

    `InvalidEncoding` for what is no epoch; what contradicts the chain is in `trouble`.
    """
    number = shown.get("number")
    if type(number) is not int or number < 1:
        raise InvalidEncoding(f"no epoch has the number {number!r}")
    manifest = Manifest.from_json(shown.get("manifest"))
    epoch = Epoch(number=number, manifest=manifest)
    epoch.trouble = _trouble(epoch, domain, log_id, chain.epoch(log_id, number))
    return epoch


def _trouble(epoch: Epoch, domain: Domain, log_id: bytes, fact: EpochFact | None) -> str:
    manifest = epoch.manifest
    if (manifest.chain_id, manifest.settlement) != (domain.chain_id, domain.settlement):
        return "its manifest names another chain or Settlement"
    if manifest.log_id != log_id:
        return "its manifest names another log"
    if fact is None:
        return f"the chain knows no epoch {epoch.number} of this log"
    if fact.key != epoch.keys.signer:
        return f"the chain has registered the key {checksum(fact.key)} for it"
    if fact.manifest_digest != manifest.digest():
        return "the chain has registered another manifest for it"
    return ""
