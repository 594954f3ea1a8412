"""The order book: every node's firm standing offers, and the field an auction finds in it.

An offer is taken only if its node signed it for this log and model, with a rising sequence and a
short validity; everything else is refused with a counted reason. Slots of the book keep their place
so that its root changes only where something changed; whoever left gives up its slot.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from coordinator.errors import JobRefused
from coordinator.field import CHUNK, Field, Slot
from coordinator.ports import ModelRecord, NodeRecord
from coordinator.reputation import Changed, Standing
from coordinator.shelf import Shelf
from pinaivu.auction.replay import MOST_SLOTS
from pinaivu.auction.rule import Entrant, Market
from pinaivu.auction.transcript import Row
from pinaivu.keys import BadSignature
from pinaivu.messages import Offer
from pinaivu.reputation.standing import MOST_TPS_MILLI
from pinaivu.typed_data import Domain, Signed

# Nobody can win before its offer was issued, and nodes renew theirs every 4 s: were this as much, a
# node whose clock is ahead would never be in the market, and never hear why.
_CLOCK_SKEW_MS: Final = 1_000
_SPARSE: Final = 4


class Held(Struct, frozen=True):
    """An accepted offer with its digest and its node's registration."""

    signed: Signed[Offer]
    digest: bytes
    record: NodeRecord


@dataclass(slots=True)
class _Entry:
    """A node's present offer, and until when any offer it has made could still be valid."""

    held: Held
    until_ms: int


class _Model:
    """A model's offers by node, and the shelf that shows those that are live."""

    def __init__(self) -> None:
        self.entries: dict[bytes, _Entry] = {}
        self.shelf = Shelf()
        self.changed: dict[bytes, None] = {}  # nodes whose slot is out of date, as they came


class OrderBook:
    """Offers by model and node; `standing` and `busy` say what is known of a node now.

    Whoever changes what they say of a node calls `touch`: the next auction reads them again.
    """

    def __init__(
        self,
        domain: Domain,
        log_id: bytes,
        *,
        ttl_ms: int,
        standing: Callable[[Offer], Standing],
        busy: Callable[[bytes], int],
    ) -> None:
        self._domain = domain
        self._log_id = log_id
        self._ttl_ms = ttl_ms
        self._standing = standing
        self._busy = busy
        self._models: dict[str, _Model] = {}
        self._sweep_ms = 0
        self.refused: Counter[str] = Counter()

    def put(
        self, signed: Signed[Offer], record: NodeRecord, model: ModelRecord | None, now_ms: int
    ) -> None:
        """Accept an offer or raise `JobRefused` with the counted reason."""
        offer = signed.message
        self._sweep(now_ms)
        try:
            self._check(signed, record, model, now_ms)
        except JobRefused as refusal:
            self.refused[refusal.code] += 1
            raise
        known = self._models.setdefault(offer.model, _Model())
        before = known.entries.get(offer.node)
        until_ms = max(before.until_ms if before else 0, offer.expires_ms)
        held = Held(signed, signed.digest(self._domain), record)
        known.entries[offer.node] = _Entry(held, until_ms)
        known.changed[offer.node] = None

    def _check(
        self, signed: Signed[Offer], record: NodeRecord, model: ModelRecord | None, now_ms: int
    ) -> None:
        offer = signed.message
        held = self.held(offer.model, offer.node)
        checks = (
            (offer.node == record.node, "foreign_node", "the offer names another node"),
            (offer.log_id == self._log_id, "foreign_log", "the offer is for another log"),
            (model is not None, "unknown_model", f"model {offer.model!r} is not registered"),
            (
                model is not None and offer.fingerprint == model.fingerprint,
                "wrong_fingerprint",
                "the offer's fingerprint is not the registered one",
            ),
            (offer.tps_milli >= 1, "no_speed", "promise at least 1 token per 1000 s"),
            (
                offer.ttft_ms >= 1 and offer.tps_milli <= MOST_TPS_MILLI,
                "beyond_measure",
                "promise at least 1 ms to the first token, and at most a million tokens a second",
            ),
            (
                0 < offer.expires_ms - offer.issued_ms <= self._ttl_ms,
                "bad_validity",
                f"an offer is valid for at most {self._ttl_ms} ms",
            ),
            (offer.expires_ms > now_ms, "expired", "the offer has expired"),
            (
                offer.issued_ms <= now_ms + _CLOCK_SKEW_MS,
                "from_the_future",
                "the offer is issued in the future: check the node's clock",
            ),
            (
                held is None or offer.sequence > held.signed.message.sequence,
                "stale_sequence",
                "an offer's sequence must rise",
            ),
            (
                held is not None or self._size(offer.model) < MOST_SLOTS,
                "book_full",
                f"{MOST_SLOTS} nodes offer this model already",
            ),
        )
        for holds, code, detail in checks:
            if not holds:
                raise JobRefused(code, detail)
        try:
            signed.require(self._domain, offer.node)
        except BadSignature as error:
            raise JobRefused("bad_signature", str(error)) from error

    def held(self, model: str, node: bytes) -> Held | None:
        """A node's present offer for a model."""
        known = self._models.get(model)
        entry = known.entries.get(node) if known else None
        return entry.held if entry else None

    def touch(self, node: bytes) -> None:
        """What is known of a node has changed: its load, its reputation."""
        for known in self._models.values():
            if node in known.entries:
                known.changed[node] = None

    def heed(self, changed: Changed) -> None:
        """A receipt has changed the standing of these nodes, or of all who offer its model."""
        known = self._models.get(changed.model)
        if known:
            nodes = known.entries if changed.everyone else changed.nodes & known.entries.keys()
            known.changed.update(dict.fromkeys(nodes))

    def field(self, market: Market) -> Field:
        """Everybody who fits a job now, and the model's book as it stands."""
        known = self._models.get(market.model)
        if known is None:
            return Shelf().field(market)
        for node in known.shelf.run_out(market.close_ms):
            known.shelf.put(node, None)
        for node in known.changed:
            known.shelf.put(node, self._slot(known.entries[node].held, market.close_ms))
        known.changed.clear()
        return known.shelf.field(market)

    def models(self, now_ms: int) -> dict[str, int]:
        """Models on offer, each with its number of live offers; any thread may ask."""
        counts = {
            model: sum(_live(entry.held, now_ms) for entry in list(known.entries.values()))
            for model, known in list(self._models.items())
        }
        return {model: live for model, live in counts.items() if live}

    def live(self, model: str, now_ms: int) -> list[Offer]:
        """The live offers of a model; any thread may ask."""
        known = self._models.get(model)
        entries = list(known.entries.values()) if known else []
        return [entry.held.signed.message for entry in entries if _live(entry.held, now_ms)]

    def _size(self, model: str) -> int:
        known = self._models.get(model)
        return len(known.entries) if known else 0

    def _slot(self, held: Held, now_ms: int) -> Slot | None:
        if not _live(held, now_ms):
            return None
        node = held.record.node
        standing = self._standing(held.signed.message)
        row = Row(
            offer_digest=held.digest,
            node=node,
            payout=held.record.payout,
            bond_funder=held.record.bond_funder,
            success_ppm=standing.success_ppm,
            cal_t=standing.cal_t,
            cal_s=standing.cal_s,
            busy=self._busy(node),
            newcomer=standing.newcomer,
        )
        return Slot(Entrant(row, held.signed.message), held.signed)

    def _sweep(self, now_ms: int) -> None:
        """Once per validity: forget nodes and models that left, and shelves grown too large.

        An offer's sequence is remembered until nothing older could be put again.
        """
        if now_ms < self._sweep_ms:
            return
        self._sweep_ms = now_ms + self._ttl_ms
        for model, known in list(self._models.items()):
            for node, entry in list(known.entries.items()):
                if entry.until_ms <= now_ms:
                    del known.entries[node]
                    known.changed.pop(node, None)
                    known.shelf.give_up(node)
            if not known.entries:
                del self._models[model]
            elif len(known.shelf) > _SPARSE * max(CHUNK, len(known.entries)):
                known.shelf = Shelf()
                known.changed = dict.fromkeys(known.entries)


def _live(held: Held, now_ms: int) -> bool:
    offer = held.signed.message
    return offer.slots > 0 and now_ms < offer.expires_ms
