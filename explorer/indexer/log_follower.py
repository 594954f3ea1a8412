"""Takes in the log: checkpoint first, then tile roots under it, then the leaves under those.

    note ── both signatures, by an epoch the chain registered ──► size, root
    tile/1, tile/0 ── with what is proven already ──► the same root, or the log is refuted
    tile/receipts ── digests computed here ──► the proven tile root, or they are not taken

So nothing is stored that is not under a signed root, and a log that ever shows a different past is
caught at its next checkpoint. Not checked here: what a receipt claims about its evidence; a
request's page runs `pinaivu.verify` for that.
"""

from collections.abc import Callable
from typing import Final

from explorer.indexer.epochs import EpochFacts, read_epoch
from explorer.indexer.history import History
from explorer.indexer.leaves import Leaf, read_receipt_bundle
from explorer.indexer.prefix import Prefix, split_size
from explorer.sources import LogSource, NotThere
from pinaivu.checkpoints import verify_note
from pinaivu.errors import PeerFault
from pinaivu.keys import BadSignature
from pinaivu.merkle.hashing import root_of_leaves
from pinaivu.merkle.tiles import TILE_WIDTH, Tile, read_hash_tile, tiles_at
from pinaivu.messages import Checkpoint

_TILES_AT_ONCE: Final = 16
"""Tiles taken in per step, so that a first run shows progress."""


class LogRefuted(PeerFault):
    """What the log serves contradicts a checkpoint it signed."""


class LogFollower:
    """Brings a `History` level with the newest checkpoint, some tiles at a time."""

    def __init__(self, source: LogSource, chain: Callable[[], EpochFacts]) -> None:
        self._source = source
        self._chain = chain

    def step(self, history: History) -> tuple[Checkpoint | None, bool]:
        """Take in what is next: the checkpoint in force, and whether more is waiting under it.

        Raises `TransportFailure` where log or chain don't answer, and `PeerFault` or
        `InvalidEncoding` where what the log serves does not hold.
        """
        try:
            note = self._source.checkpoint()
        except NotThere:
            return None, False
        checkpoint = self._verified(history, note)
        if checkpoint.size <= history.size:
            self._require_known(history, checkpoint)
            return checkpoint, False
        proven = self._proven(history, checkpoint)
        self._take(history, proven)
        return checkpoint, history.size < checkpoint.size

    def _verified(self, history: History, note: str) -> Checkpoint:
        try:
            return _checkpoint_of(history, note)
        except BadSignature:
            self._look_for_epochs(history)
        return _checkpoint_of(history, note)

    def _look_for_epochs(self, history: History) -> None:
        """Learn new epochs, and ask again about those that did not hold."""
        for shown in self._source.epochs():
            known = history.epochs.get(shown.get("number", 0))
            if known is None or known.trouble:
                epoch = read_epoch(shown, history.domain, history.log_id, self._chain())
                history.add_epoch(epoch)

    def _require_known(self, history: History, checkpoint: Checkpoint) -> None:
        if history.root_at(checkpoint.size) != checkpoint.root:
            raise LogRefuted(
                f"the checkpoint of {checkpoint.size} leaves has another root than the leaves that"
                " an earlier checkpoint showed: the log has two histories"
            )

    def _proven(self, history: History, checkpoint: Checkpoint) -> Prefix:
        """The tree at the checkpoint: what is proven already, and tile hashes that fit it."""
        size = checkpoint.size
        tiles, rest = split_size(size)
        known = history.prefix.tiles
        roots: list[bytes] = []
        if tiles > known:
            for tile in tiles_at(1, size, since=known * TILE_WIDTH):
                hashes = read_hash_tile(self._source.tile(tile), tile.width)
                roots += hashes[max(0, known - tile.start) :]
        tail: list[bytes] = []
        if rest:
            tail = read_hash_tile(self._source.tile(Tile(0, tiles, rest)), rest)
        proven = history.prefix.extended(roots, tail)
        if proven.root() != checkpoint.root:
            raise LogRefuted(
                f"the tiles up to leaf {size} don't give the root that the checkpoint signs: the"
                " log serves other leaves than it signed, or has rewritten those shown before"
            )
        return proven

    def _take(self, history: History, proven: Prefix) -> None:
        """Store the next tiles' leaves, each tile once its hashes are the proven ones."""
        roots = proven.tile_roots()
        first = history.prefix.tiles
        for number in range(first, min(first + _TILES_AT_ONCE, len(roots))):
            leaves = self._leaves(history, Tile("receipts", number))
            if root_of_leaves(leaf.hash for leaf in leaves) != roots[number]:
                raise LogRefuted(f"the receipts of tile {number} are not those of its hash")
            self._append(history, number, leaves)
        if history.prefix.tiles == len(roots) and proven.tail:
            number = len(roots)
            leaves = self._leaves(history, Tile("receipts", number, len(proven.tail)))
            if [leaf.hash for leaf in leaves] != proven.tail:
                raise LogRefuted(f"the receipts of tile {number} are not those of its hashes")
            self._append(history, number, leaves)

    def _leaves(self, history: History, tile: Tile) -> list[Leaf]:
        return read_receipt_bundle(self._source.tile(tile), tile.width, history.domain)

    def _append(self, history: History, number: int, leaves: list[Leaf]) -> None:
        """Append what is new of a tile; what is known of it must be the same."""
        known = history.prefix.tail
        if [leaf.hash for leaf in leaves[: len(known)]] != known:
            raise LogRefuted(
                f"leaves of tile {number} are not the ones an earlier checkpoint showed: the log"
                " has two histories"
            )
        for epoch in {leaf.signed.message.epoch for leaf in leaves} - history.epochs.keys():
            self._look_for_epochs(history)
            if epoch not in history.epochs:
                raise LogRefuted(f"the log holds leaves of epoch {epoch}, which it does not show")
        history.append(leaves[len(known) :])


def _checkpoint_of(history: History, note: str) -> Checkpoint:
    """The note's checkpoint, if an epoch whose keys hold signed it."""
    for _, epoch in sorted(history.epochs.items(), reverse=True):
        if epoch.trouble:
            continue
        try:
            return verify_note(note, history.domain, history.log_id, epoch.keys).message
        except BadSignature:
            continue
    troubles = "; ".join(
        f"epoch {e.number}: {e.trouble}" for e in history.epochs.values() if e.trouble
    )
    raise BadSignature("no epoch that the chain registered signed the checkpoint. " + troubles)
