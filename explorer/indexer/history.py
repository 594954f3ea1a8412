"""The log as far as it is proven here: tree, books and epochs in memory, rows in the database.

Both move together: leaves of one tile are one transaction. When a step fails, its `History` is
thrown away and loaded anew, so memory is never ahead of what is durable.
"""

from collections import Counter
from collections.abc import Sequence

from sqlmodel import Session, col, select

from explorer.indexer.epochs import Epoch, load_epochs, save_epoch
from explorer.indexer.leaves import Leaf, leaf_row, receipt_row, segment_rows
from explorer.indexer.prefix import Prefix, split_size
from explorer.indexer.running import Key, follow, keys_of, load_books, save
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import BadSignature
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tiles import TILE_WIDTH
from pinaivu.messages import EpochStart, Receipt
from pinaivu.store.database import Database
from pinaivu.store.explorer import LeafRow, ReceiptRow, TileRow, TotalsRow
from pinaivu.typed_data import Domain, signed_from_bytes


class History:
    """One log up to `size`; every leaf of it lies under a verified checkpoint."""

    def __init__(self, database: Database, domain: Domain, log_id: bytes) -> None:
        self.domain = domain
        self.log_id = log_id
        self._database = database
        with database.read() as session:
            tiles = session.exec(select(TileRow.root).order_by(col(TileRow.number))).all()
            tail = self._digests(session, len(tiles) * TILE_WIDTH, None)
            self.prefix = Prefix(tiles, [leaf_hash(digest) for digest in tail])
            self.books = load_books(session)
            self.epochs = load_epochs(session)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self.prefix.size

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` leaves; `InvalidEncoding` beyond what is here."""
        if size > self.size:
            raise InvalidEncoding(f"{self.size} leaves are known, not {size}")
        tiles, _ = split_size(size)
        return self.prefix.root_at(tiles, self.hashes(tiles * TILE_WIDTH, size))

    def hashes(self, start: int, stop: int) -> list[bytes]:
        """The leaf hashes of positions `start` up to `stop`."""
        with self._database.read() as session:
            return [leaf_hash(digest) for digest in self._digests(session, start, stop)]

    def receipts(self, start: int, stop: int) -> list[Receipt]:
        """The receipts among the leaves `start` up to `stop`, in order."""
        statement = (
            select(LeafRow.signed)
            .where(LeafRow.kind == "Receipt")
            .where(col(LeafRow.position) >= start, col(LeafRow.position) < stop)
            .order_by(col(LeafRow.position))
        )
        with self._database.read() as session:
            return [signed_from_bytes(Receipt, raw).message for raw in session.exec(statement)]

    def add_epoch(self, epoch: Epoch) -> None:
        """Take in an epoch, or a new judgement of one."""
        known = self.epochs.get(epoch.number)
        if known is not None:
            epoch.first_position = known.first_position
        with self._database.begin() as session:
            save_epoch(session, epoch)
        self.epochs[epoch.number] = epoch

    def append(self, leaves: Sequence[Leaf]) -> None:
        """Judge leaves that are proven to come next, and store them with what was found."""
        keys, troubles = dict[Key, None](), Counter[Key]()
        with self._database.begin() as session:
            totals = session.get(TotalsRow, 1) or TotalsRow()
            for leaf in leaves:
                position = self.size
                trouble = self._judge(session, leaf, position)
                tile = self.prefix.append(leaf.hash)
                session.add(leaf_row(leaf, position, trouble))
                if tile is not None:
                    session.add(TileRow(number=position // TILE_WIDTH, root=tile))
                if leaf.receipt is not None:
                    moved = keys_of(leaf.receipt)
                    keys.update(dict.fromkeys(moved))
                    troubles.update(moved if trouble else [])
                    _add_receipt(session, totals, leaf.receipt, position, trouble)
            save(session, self.books, keys, troubles)
            session.add(totals)

    def _judge(self, session: Session, leaf: Leaf, position: int) -> str:
        """What doesn't hold about a leaf beside its place in the tree; empty if all does."""
        message = leaf.signed.message
        epoch = self.epochs.get(message.epoch)
        if epoch is None:
            return f"the log shows no epoch {message.epoch}"
        found = [self._signature_trouble(leaf, epoch)]
        if message.log_id != self.log_id:
            found.append("it names another log")
        if isinstance(message, EpochStart):
            found.append(self._start_trouble(session, message, epoch, position))
        elif isinstance(message, Receipt):
            found += self._receipt_troubles(session, message, position)
        return "; ".join(trouble for trouble in found if trouble)

    def _signature_trouble(self, leaf: Leaf, epoch: Epoch) -> str:
        if epoch.trouble:
            return f"epoch {epoch.number} does not hold: {epoch.trouble}"
        try:
            leaf.signed.require(self.domain, epoch.keys.signer)
        except BadSignature as error:
            return str(error)
        return ""

    def _start_trouble(
        self, session: Session, start: EpochStart, epoch: Epoch, position: int
    ) -> str:
        due = (position, self.prefix.root(), epoch.manifest.digest())
        if (start.size, start.root, start.manifest_digest) != due:
            return "the epoch does not start where it says, or names another manifest"
        if epoch.first_position is None:
            epoch.first_position = position
            save_epoch(session, epoch)
        return ""

    def _receipt_troubles(self, session: Session, receipt: Receipt, position: int) -> list[str]:
        found = [follow(self.books, receipt)]
        started = [e.number for e in self.epochs.values() if e.first_position is not None]
        if receipt.epoch != max(started, default=0):
            found.append(f"epoch {receipt.epoch} does not cover leaf {position}")
        twin = session.exec(
            select(ReceiptRow.position).where(
                ReceiptRow.job_id == receipt.job_id, ReceiptRow.gateway == receipt.gateway
            )
        ).first()
        if twin is not None:
            found.append(f"the same job has another receipt at leaf {twin}")
        return found

    def _digests(self, session: Session, start: int, stop: int | None) -> Sequence[bytes]:
        statement = (
            select(LeafRow.digest)
            .where(col(LeafRow.position) >= start)
            .order_by(col(LeafRow.position))
        )
        if stop is not None:
            statement = statement.where(col(LeafRow.position) < stop)
        return session.exec(statement).all()


def _add_receipt(
    session: Session, totals: TotalsRow, receipt: Receipt, position: int, trouble: str
) -> None:
    row = receipt_row(receipt, position, trouble)
    session.add(row)
    session.add_all(segment_rows(receipt, position))
    totals.receipts += 1
    totals.troubles += bool(trouble)
    totals.prompt_tokens += row.prompt_tokens
    totals.output_tokens += row.output_tokens
    totals.charged = str(int(totals.charged) + receipt.total)
