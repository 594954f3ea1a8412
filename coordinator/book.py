"""The order book: every node's firm standing offers, and the rows an auction sees.

An offer is taken only if its node signed it for this log and model, with a rising sequence and a
short validity; everything else is refused with a counted reason. Slots of the book keep their place
so that its root changes only where something changed.
"""

from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from coordinator.errors import JobRefused
from coordinator.ports import ModelRecord, NodeRecord
from coordinator.reputation import Standing
from pinaivu.auction.rule import Entrant
from pinaivu.auction.transcript import Row
from pinaivu.keys import BadSignature
from pinaivu.messages import Offer
from pinaivu.typed_data import Domain, Signed

_CLOCK_SKEW_MS = 5_000


class Held(Struct, frozen=True):
    """An accepted offer with its digest and its node's registration."""

    signed: Signed[Offer]
    digest: bytes
    record: NodeRecord


class Slot(Struct, frozen=True):
    """One slot of the book as an auction sees it: the entrant and the offer it signed."""

    entrant: Entrant
    signed: Signed[Offer]


class OrderBook:
    """Offers by model and node."""

    def __init__(self, domain: Domain, log_id: bytes, *, ttl_ms: int) -> None:
        self._domain = domain
        self._log_id = log_id
        self._ttl_ms = ttl_ms
        self._slots: dict[str, list[bytes]] = {}
        self._held: dict[tuple[str, bytes], Held] = {}
        self.refused: Counter[str] = Counter()

    def put(
        self, signed: Signed[Offer], record: NodeRecord, model: ModelRecord | None, now_ms: int
    ) -> None:
        """Accept an offer or raise `JobRefused` with the counted reason."""
        offer = signed.message
        try:
            self._check(signed, record, model, now_ms)
        except JobRefused as refusal:
            self.refused[refusal.code] += 1
            raise
        slots = self._slots.setdefault(offer.model, [])
        if offer.node not in slots:
            slots.append(offer.node)
        self._held[offer.model, offer.node] = Held(signed, signed.digest(self._domain), record)

    def _check(
        self, signed: Signed[Offer], record: NodeRecord, model: ModelRecord | None, now_ms: int
    ) -> None:
        offer = signed.message
        held = self._held.get((offer.model, offer.node))
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
        return self._held.get((model, node))

    def slots(
        self,
        model: str,
        now_ms: int,
        standing: Callable[[Offer], Standing],
        busy: Callable[[bytes], int],
    ) -> list[Slot | None]:
        """The book's slots for one model; None where an offer is withdrawn or has run out."""
        return [
            self._slot(held, standing(held.signed.message), busy(node), now_ms)
            for node in self._slots.get(model, [])
            for held in (self._held[model, node],)
        ]

    def models(self, now_ms: int) -> dict[str, int]:
        """Models on offer, each with its number of live offers."""
        return dict(
            Counter(model for (model, _), held in self._held.items() if _live(held, now_ms))
        )

    @staticmethod
    def _slot(held: Held, standing: Standing, busy: int, now_ms: int) -> Slot | None:
        if not _live(held, now_ms):
            return None
        row = Row(
            offer_digest=held.digest,
            node=held.record.node,
            payout=held.record.payout,
            bond_funder=held.record.bond_funder,
            success_ppm=standing.success_ppm,
            cal_t=standing.cal_t,
            cal_s=standing.cal_s,
            busy=busy,
            newcomer=standing.newcomer,
        )
        return Slot(Entrant(row, held.signed.message), held.signed)


def _live(held: Held, now_ms: int) -> bool:
    offer = held.signed.message
    return offer.slots > 0 and now_ms < offer.expires_ms
