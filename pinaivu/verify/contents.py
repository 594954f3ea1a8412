"""A bundle's document as typed values; nothing in it is believed.

Every member is read in its one canonical form, so that what a report is about can't be spelled in
two ways. What is not of that form is an `InvalidEncoding` naming the member. The transcript stays
as it is: its reader (`pinaivu.auction.replay`) needs to know the market.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any, TypeVar

from msgspec import Struct

from pinaivu.checkpoints import CheckpointKeys
from pinaivu.encoding import from_hex, jcs
from pinaivu.errors import InvalidEncoding
from pinaivu.manifest import Manifest, Parameters
from pinaivu.messages import (
    Award,
    Batch,
    Checkpoint,
    Completion,
    Delivery,
    EpochStart,
    Failure,
    Grant,
    Job,
    Receipt,
    Verdict,
)
from pinaivu.model_card import ModelCard
from pinaivu.settlement import Statement
from pinaivu.typed_data import Domain, Message, Signed, signed_from_json

T = TypeVar("T")
M = TypeVar("M", bound=Message)
_NOTHING: frozenset[str] = frozenset()


class EpochLeaf(Struct, frozen=True, kw_only=True):
    """An `EpochStart` with the proof of its leaf under the bundle's checkpoint."""

    signed: Signed[EpochStart]
    inclusion: tuple[bytes, ...]


class LogPart(Struct, frozen=True, kw_only=True):
    """Where the receipt stands in the log."""

    index: int
    inclusion: tuple[bytes, ...]
    checkpoint: Signed[Checkpoint]
    note: str
    epoch_start: EpochLeaf
    next_epoch_start: EpochLeaf | None


class StatementPart(Struct, frozen=True, kw_only=True):
    """A party's statement with its proof under the batch's statement root."""

    entry: Statement
    index: int
    inclusion: tuple[bytes, ...]


class BatchPart(Struct, frozen=True, kw_only=True):
    """The batch that settles the receipt."""

    batch: Signed[Batch]
    inclusion: tuple[bytes, ...]
    consistency: tuple[bytes, ...]
    statements: tuple[StatementPart, ...]


class EpochPart(Struct, frozen=True, kw_only=True, dict=True):
    """What an epoch was started with."""

    number: int
    manifest: Manifest
    parameters: Parameters
    document: bytes
    verdicts: tuple[Signed[Verdict], ...]

    @cached_property
    def manifest_digest(self) -> bytes:
        """The manifest's digest."""
        return self.manifest.digest()

    @cached_property
    def parameters_digest(self) -> bytes:
        """The parameters' digest."""
        return self.parameters.digest()

    @cached_property
    def keys(self) -> CheckpointKeys:
        """The keys that the manifest names for signing and for notes."""
        return CheckpointKeys(self.manifest.signing_key, self.manifest.note_key)

    @cached_property
    def signer(self) -> bytes:
        """The address the epoch signs with."""
        return self.keys.signer


class HolderPart(Struct, frozen=True, kw_only=True):
    """What only the holder of the key adds; each member may be missing."""

    salt: bytes | None
    request: Mapping[str, Any] | None
    response: Mapping[str, Any] | None
    account_secret: bytes | None


class Contents(Struct, frozen=True, kw_only=True):
    """A whole bundle."""

    chain: Domain
    receipt: Signed[Receipt]
    superseded: Signed[Receipt] | None
    grant: Signed[Grant]
    job: Signed[Job]
    awards: tuple[Signed[Award], ...]
    failures: tuple[Signed[Failure], ...]
    completions: tuple[Signed[Completion], ...]
    delivery: Signed[Delivery] | None
    transcript: Mapping[str, Any] | None
    log: LogPart
    batch: BatchPart | None
    epochs: tuple[EpochPart, ...]
    model_card: ModelCard | None
    has_proofs: bool
    holder: HolderPart | None


def read_contents(document: Mapping[str, Any]) -> Contents:
    """Read an unpacked document (`pinaivu.bundles.unpack`)."""
    if "epochs" not in document:
        raise InvalidEncoding("epochs: missing")
    return Contents(
        chain=_at("chain", _read_chain, document["chain"]),
        receipt=_at("receipt", _signed(Receipt), document["receipt"]),
        superseded=_maybe("superseded", _signed(Receipt), document),
        grant=_at("grant", _signed(Grant), document["grant"]),
        job=_at("job", _signed(Job), document["job"]),
        awards=_many("awards", _signed(Award), document),
        failures=_many("failures", _signed(Failure), document),
        completions=_many("completions", _signed(Completion), document),
        delivery=_maybe("delivery", _signed(Delivery), document),
        transcript=_maybe("transcript", _object, document),
        log=_at("log", _read_log, document["log"]),
        batch=_maybe("batch", _read_batch, document),
        epochs=_many("epochs", _read_epoch, document),
        model_card=_maybe("model_card", _read_card, document),
        has_proofs="proofs" in document,
        holder=_maybe("holder", _read_holder, document),
    )


def members(
    raw: object, needed: AbstractSet[str], optional: AbstractSet[str] = _NOTHING
) -> Mapping[str, Any]:
    """A JSON object with all of `needed`, perhaps some of `optional`, and nothing else."""
    if not isinstance(raw, dict) or not needed <= raw.keys() <= needed | optional:
        raise InvalidEncoding(f"not exactly the members {', '.join(sorted(needed))}")
    return raw


def _read_chain(raw: object) -> Domain:
    parts = members(raw, {"chain_id", "settlement"})
    return Domain(_integer(parts["chain_id"]), from_hex(parts["settlement"], 20))


def _read_log(raw: object) -> LogPart:
    needed = {"index", "inclusion", "checkpoint", "note", "epoch_start"}
    parts = members(raw, needed, {"next_epoch_start"})
    return LogPart(
        index=_at("index", _integer, parts["index"]),
        inclusion=_at("inclusion", _hashes, parts["inclusion"]),
        checkpoint=_at("checkpoint", _signed(Checkpoint), parts["checkpoint"]),
        note=_at("note", _text, parts["note"]),
        epoch_start=_at("epoch_start", _read_epoch_leaf, parts["epoch_start"]),
        next_epoch_start=_maybe("next_epoch_start", _read_epoch_leaf, parts),
    )


def _read_epoch_leaf(raw: object) -> EpochLeaf:
    parts = members(raw, {"message", "signature", "inclusion"})
    signed = {"message": parts["message"], "signature": parts["signature"]}
    return EpochLeaf(
        signed=signed_from_json(EpochStart, signed), inclusion=_hashes(parts["inclusion"])
    )


def _read_batch(raw: object) -> BatchPart:
    parts = members(raw, {"batch", "inclusion", "consistency", "statements"})
    return BatchPart(
        batch=_signed(Batch)(parts["batch"]),
        inclusion=_at("inclusion", _hashes, parts["inclusion"]),
        consistency=_at("consistency", _hashes, parts["consistency"]),
        statements=_many("statements", _read_statement, parts),
    )


def _read_statement(raw: object) -> StatementPart:
    parts = members(raw, {"entry", "index", "inclusion"})
    return StatementPart(
        entry=Statement.from_bytes(from_hex(parts["entry"])),
        index=_integer(parts["index"]),
        inclusion=_hashes(parts["inclusion"]),
    )


def _read_epoch(raw: object) -> EpochPart:
    parts = members(raw, {"number", "manifest", "parameters", "document", "verdicts"})
    return EpochPart(
        number=_at("number", _integer, parts["number"]),
        manifest=_at("manifest", Manifest.from_json, parts["manifest"]),
        parameters=_at("parameters", Parameters.from_json, parts["parameters"]),
        document=_at("document", _base64, parts["document"]),
        verdicts=_many("verdicts", _signed(Verdict), parts),
    )


def _read_card(raw: object) -> ModelCard:
    return ModelCard.from_json(jcs(raw))


def _read_holder(raw: object) -> HolderPart:
    parts = members(raw, _NOTHING, {"salt", "request", "response", "account_secret"})
    return HolderPart(
        salt=_maybe("salt", _hash, parts),
        request=_maybe("request", _object, parts),
        response=_maybe("response", _object, parts),
        account_secret=_maybe("account_secret", _hash, parts),
    )


def _signed(cls: type[M]) -> Callable[[object], Signed[M]]:
    return lambda raw: signed_from_json(cls, raw)


def _hash(raw: object) -> bytes:
    return from_hex(raw, 32)


def _hashes(raw: object) -> tuple[bytes, ...]:
    return tuple(_hash(item) for item in _list(raw))


def _list(raw: object) -> list[Any]:
    if not isinstance(raw, list):
        raise InvalidEncoding("not a list")
    return raw


def _object(raw: object) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise InvalidEncoding("not an object")
    return raw


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise InvalidEncoding("not a text")
    return raw


def _integer(raw: object) -> int:
    if type(raw) is not int or raw < 0:
        raise InvalidEncoding(f"{raw!r} is no integer from 0")
    return raw


def _base64(raw: object) -> bytes:
    """Canonical base64: the decoder alone would take other padding bits for the same bytes."""
    try:
        value = b64decode(_text(raw), validate=True)
    except (Base64Error, ValueError) as error:
        raise InvalidEncoding("not base64") from error
    if b64encode(value).decode() != raw:
        raise InvalidEncoding("not canonical base64")
    return value


def _many(name: str, read: Callable[[object], T], parts: Mapping[str, Any]) -> tuple[T, ...]:
    items = _at(name, _list, parts[name])
    return tuple(_at(f"{name}[{number}]", read, item) for number, item in enumerate(items))


def _maybe(name: str, read: Callable[[object], T], parts: Mapping[str, Any]) -> T | None:
    return _at(name, read, parts[name]) if name in parts else None


def _at(name: str, read: Callable[[object], T], raw: object) -> T:
    try:
        return read(raw)
    except InvalidEncoding as error:
        raise InvalidEncoding(f"{name}: {error}") from error
