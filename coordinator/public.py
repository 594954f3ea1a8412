"""The log's public face over HTTP: no keys, cacheable, nothing secret behind it.

Log clients use `/checkpoint` and `/tile/…` (C2SP tlog-tiles); people and the explorer look up
receipts, transcripts and batches. `/attestation` says who signs. Prompts and answers never get
here.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from fastapi import FastAPI, HTTPException, Response
from msgspec import Struct
from sqlmodel import Session, col, select

from coordinator.archive import Books, published_transcript
from coordinator.bundler import Bundler
from coordinator.log import Log
from coordinator.standing import standing
from pinaivu.batch_copies import BatchCopy
from pinaivu.encoding import from_hex, jcs, to_hex
from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.tiles import Tile, entry_bundle, hash_tile
from pinaivu.messages import Batch, EpochStart, Offer, Receipt
from pinaivu.store.coordinator import BatchRow, CheckpointRow, EpochRow, LeafRow, TranscriptRow
from pinaivu.store.database import Database
from pinaivu.typed_data import Message, signed_from_bytes

_FOREVER: Final = "public, max-age=31536000, immutable"
_LEAF_TYPES: Final[dict[str, type[Message]]] = {"Receipt": Receipt, "EpochStart": EpochStart}
Json = dict[str, Any]


class Face(Struct, frozen=True, kw_only=True):
    """What the public server shows."""

    log: Log
    database: Database
    bundler: Bundler
    addresses: Callable[[], Sequence[str]]
    active_epoch: Callable[[], int]
    pending: Callable[[], Json | None]
    market: Callable[[], dict[str, int]]
    live_offers: Callable[[str], Sequence[Offer]] = lambda _: ()
    refused_offers: Callable[[], dict[str, int]]


def create_app(face: Face) -> FastAPI:
    """The HTTP application; handlers run in worker threads."""
    app = FastAPI(title="Pinaivu log", docs_url=None, redoc_url=None, openapi_url=None)
    _add_log_routes(app, face)
    _add_lookup_routes(app, face)

    @app.get("/attestation")
    def attestation() -> Json:
        with face.database.read() as session:
            epochs = [_epoch(row) for row in session.exec(select(EpochRow))]
        return {
            "log_id": to_hex(face.log.log_id),
            "active": face.active_epoch(),
            "addresses": list(face.addresses()),
            "epochs": epochs,
            "pending": face.pending(),
        }

    @app.get("/market")
    def market() -> Json:
        return {"models": face.market(), "refused_offers": face.refused_offers()}

    @app.get("/market/{model:path}")
    def of_model(model: str) -> Json:
        found = standing(face.live_offers(model))
        if found is None:
            raise HTTPException(404, "nobody offers this model now")
        return {"model": model} | found

    return app


def _add_log_routes(app: FastAPI, face: Face) -> None:
    @app.get("/checkpoint")
    def checkpoint() -> Response:
        with face.database.read() as session:
            newest = session.exec(
                select(CheckpointRow).order_by(col(CheckpointRow.size).desc())
            ).first()
        if newest is None:
            raise HTTPException(404, "no checkpoint yet")
        return Response(newest.note, media_type="text/plain; charset=utf-8")

    @app.get("/tile/{path:path}")
    def tile(path: str) -> Response:
        return _tile(face, path)


def _tile(face: Face, path: str) -> Response:
    try:
        tile = Tile.from_path(f"tile/{path}")
    except InvalidEncoding as error:
        raise HTTPException(404, str(error)) from error
    if not tile.exists_at(face.log.size):
        raise HTTPException(404, f"the log has {face.log.size} entries")
    headers = {"Cache-Control": _FOREVER}
    if isinstance(tile.level, int):
        body = hash_tile(face.log.tree, tile)
        return Response(body, media_type="application/octet-stream", headers=headers)
    rows = _leaves(face.database, tile.start, tile.stop)
    if tile.level == "entries":
        body = entry_bundle([row.digest for row in rows])
        return Response(body, media_type="application/octet-stream", headers=headers)
    lines = b"".join(jcs(_leaf(row)) + b"\n" for row in rows)
    return Response(lines, media_type="application/jsonl", headers=headers)


def _leaves(database: Database, start: int, stop: int) -> Sequence[LeafRow]:
    statement = (
        select(LeafRow)
        .where(col(LeafRow.position) >= start, col(LeafRow.position) < stop)
        .order_by(col(LeafRow.position))
    )
    with database.read() as session:
        return session.exec(statement).all()


def _add_lookup_routes(app: FastAPI, face: Face) -> None:
    @app.get("/receipts/{request_id}")
    def receipts(request_id: str) -> Json:
        job_id = _job_id(request_id)
        with face.database.read() as session:
            rows = session.exec(select(LeafRow).where(LeafRow.job_id == job_id)).all()
            found = [_receipt(session, row) for row in rows]
        if not found:
            raise HTTPException(404, "no receipt of this id yet")
        return {"receipts": found}

    @app.get("/bundles/{gateway}/{request_id}")
    def bundle(gateway: str, request_id: str) -> Response:
        packed = face.bundler.bundle(_address(gateway), _job_id(request_id))
        if packed is None:
            raise HTTPException(404, "no receipt under a released checkpoint yet: try again soon")
        return Response(packed, media_type="application/octet-stream")

    @app.get("/transcripts/{request_id}")
    def transcripts(request_id: str) -> Json:
        job_id = _job_id(request_id)
        with face.database.read() as session:
            rows = session.exec(select(LeafRow).where(LeafRow.job_id == job_id)).all()
            roots = [signed_from_bytes(Receipt, row.signed).message.bids_root for row in rows]
            found = [session.get(TranscriptRow, root) for root in roots]
            published = [published_transcript(session, row) for row in found if row]
        return {"transcripts": published}

    books = Books(face.database)

    @app.get("/books/{root}")
    def book(root: str) -> Response:
        found = books.published(_hash(root))
        if found is None:
            raise HTTPException(404, "no auction of this log was held over a book of this root")
        headers = {"Cache-Control": _FOREVER}
        return Response(found, media_type="application/json", headers=headers)

    @app.get("/batches")
    def batches(after: int = 0) -> Json:
        statement = (
            select(BatchRow)
            .where(col(BatchRow.sequence) > after)
            .order_by(col(BatchRow.sequence))
            .limit(100)
        )
        with face.database.read() as session:
            return {"batches": [_batch(face.log, row) for row in session.exec(statement)]}


def _receipt(session: Session, row: LeafRow) -> Json:
    signed = signed_from_bytes(Receipt, row.signed)
    batch = session.exec(
        select(BatchRow)
        .where(col(BatchRow.new_size) > row.position)
        .order_by(col(BatchRow.sequence))
    ).first()
    settlement: Json = {"state": batch.state if batch else "logged"}
    if batch:
        settlement["sequence"] = batch.sequence
    return {"receipt": signed.to_json(), "index": row.position, "settlement": settlement}


def _batch(log: Log, row: BatchRow) -> Json:
    """A signed batch with all that its submission needs: anybody can settle it."""
    signed = signed_from_bytes(Batch, row.batch)
    batch = signed.message
    proof = log.tree.consistency_proof(batch.prev_size, batch.new_size)
    return BatchCopy(signed, tuple(proof)).to_json() | {"state": row.state}


def _leaf(row: LeafRow) -> Json:
    signed = signed_from_bytes(_LEAF_TYPES[row.kind], row.signed)
    return signed.to_json() | {"type": row.kind}


def _epoch(row: EpochRow) -> Json:
    return {
        "number": row.number,
        "signer": to_hex(row.signer),
        "manifest": json.loads(row.manifest),
        "parameters": json.loads(row.parameters),
        "document": b64encode(row.document).decode(),
    }


def _job_id(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError as error:
        raise HTTPException(400, "a request id is a UUID") from error


def _address(text: str) -> bytes:
    return _bytes(text, 20, "a gateway is a 0x address")


def _hash(text: str) -> bytes:
    return _bytes(text, 32, "a root is 0x and 64 hex digits")


def _bytes(text: str, length: int, what: str) -> bytes:
    try:
        return from_hex(text, length)
    except InvalidEncoding as error:
        raise HTTPException(400, what) from error
