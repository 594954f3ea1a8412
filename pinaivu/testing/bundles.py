"""`BundleFactory`: whole, correct, signed bundles of every kind, without any network.

    factory = BundleFactory(attest=…)            # a function from a manifest to a document
    made = factory.make(SCENARIOS["continued"])
    Verifier(development(factory.domain), factory.chain).verify(made.raw, made.copies)

Everything is built with the core's own functions: auction rule, metering, `receipts.compose`, tree,
netting. A `Lies` makes the coordinator sign something else, with all that follows built upon it.
"""

from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from pinaivu.attestation import measurement, parse
from pinaivu.auction.replay import MOST_ROWS_INSIDE
from pinaivu.bundles import pack
from pinaivu.codes import Reason, Role
from pinaivu.commitments import party_of_account
from pinaivu.encoding import parse_json, to_hex
from pinaivu.manifest import Manifest, Parameters
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import EpochStart, Grant, Receipt
from pinaivu.metering import Tolerance, reserve
from pinaivu.receipts import Case, Held, Origin, compose
from pinaivu.settlement import Statement
from pinaivu.testing.auctions import Auction, hold
from pinaivu.testing.chain import ChainStandIn
from pinaivu.testing.ledger import Ledger, Settled
from pinaivu.testing.lies import TRUTH, Lies
from pinaivu.testing.parties import (
    CARD,
    MODEL_KEY,
    RATIO_PPM,
    EpochParty,
    Parties,
    make_epoch,
    make_parties,
)
from pinaivu.testing.requests import Request, make_request
from pinaivu.testing.scenarios import Scenario
from pinaivu.testing.service import Player, Service
from pinaivu.testing.sources import SeededRandom, SpaceCounter, SteppingClock
from pinaivu.typed_data import Domain, Signed
from pinaivu.verify.case import Copies
from pinaivu.verify.facts import EpochFact, ModelFact, NodeFact

DOMAIN: Final = Domain(31_337, b"\x5e" * 20)
_DAY_MS: Final = 86_400_000
Json = dict[str, Any]


class Served(Struct, frozen=True, kw_only=True):
    """A receipted job: all evidence of it and where it stands in the log."""

    grant: Signed[Grant]
    request: Request
    auction: Auction
    service: Service
    receipt: Signed[Receipt]
    index: int


class Made(Struct, frozen=True, kw_only=True):
    """A bundle, its document, and what its holder has beside it."""

    raw: bytes
    document: Json
    copies: Copies
    served: Served


class BundleFactory:
    """One made-up network. `chain` holds what its contracts would; `ledger` is its log."""

    def __init__(
        self,
        *,
        attest: Callable[[Manifest], bytes],
        random: Callable[[int], bytes] | None = None,
        clock: Callable[[], int] | None = None,
        domain: Domain = DOMAIN,
        nodes: int = 5,
    ) -> None:
        self.domain = domain
        self.random = random or SeededRandom()
        self.clock = clock or SteppingClock()
        self.parties = make_parties(domain, self.random, self.clock(), nodes)
        self.chain = ChainStandIn(domain)
        self.ledger = Ledger(domain, self.parties.log_id, self.clock)
        self.epochs: dict[int, EpochParty] = {}
        self.served: list[Served] = []
        self._attest = attest
        self._register()
        self.start_epoch()

    @property
    def epoch(self) -> EpochParty:
        """The epoch that signs now."""
        return self.epochs[max(self.epochs)]

    def start_epoch(self, parameters: Parameters | None = None) -> None:
        """A new boot: registered on chain, first leaf appended."""
        number = len(self.epochs) + 1
        epoch = make_epoch(number, self.parties, self.random, self._attest, parameters)
        document, now_ms = parse(epoch.document), self.clock()
        self.epochs[number] = epoch
        self.chain.epochs[self.parties.log_id, number] = EpochFact(
            key=epoch.key.address,
            manifest_digest=epoch.manifest.digest(),
            payload_digest=document.payload_digest,
            activated_at_ms=now_ms,
            expires_at_ms=now_ms + 30 * _DAY_MS,
            revoked_at_ms=0,
            measurement=measurement(document.pcrs),
            parameters_digest=epoch.parameters.digest(),
            pair_allowed_from_ms=now_ms - _DAY_MS,
            pair_revoked_at_ms=0,
        )
        self.ledger.start(epoch)

    def make(self, scenario: Scenario, lies: Lies = TRUTH) -> Made:
        """Serve a request between two others, settle, pay out, and bundle it."""
        self.serve(Scenario())
        served = self.serve(scenario, lies)
        self.serve(Scenario(with_account=scenario.with_account))
        self.settle(lies)
        return self.bundle(served)

    def serve(self, scenario: Scenario, lies: Lies = TRUTH) -> Served:
        """One request from its job to its leaf."""
        domain, grant = self.domain, lies.grant(self.parties.grant.message)
        parties = replace(self.parties, grant=Signed.by(self.parties.payer, domain, grant))
        request = make_request(scenario, parties, self.random, self.clock(), lies)
        received_ms, job = self.clock(), request.job.message
        limits = (
            min(job.max_price_in, grant.max_price_in),
            min(job.max_price_out, grant.max_price_out),
        )
        reserve_units = reserve(job, grant.max_per_job, *limits)
        auction = hold(
            scenario,
            request.job,
            parties,
            self.epoch,
            reserve_units,
            self.random,
            self.clock,
            lies,
        )
        player = Player(request, auction, parties, self.epoch, self.clock, lies)
        service = player.play(scenario.turns)
        receipt = self._compose(parties, request, auction, service, received_ms, scenario)
        receipt = lies.receipt(receipt)
        signed = Signed.by(self.epoch.key, self.domain, receipt)
        index = self.ledger.append(signed, lies=lies is not TRUTH)
        served = Served(
            grant=parties.grant,
            request=request,
            auction=auction,
            service=service,
            receipt=signed,
            index=index,
        )
        self.served.append(served)
        return served

    def settle(self, lies: Lies = TRUTH) -> Settled:
        """Batch what is pending, settle it on the stand-in chain and pay all nodes out."""
        settled = self.ledger.settle(self.epoch, lies)
        self.chain.settle(settled.batch)
        for node in self.parties.nodes:
            if self.chain.credits[node.key.address]:
                self.chain.pay_out(node.key.address)
        return settled

    def bundle(self, served: Served, *, with_holder: bool = False) -> Made:
        """The packed bundle of a served job under a fresh checkpoint."""
        document = self.document(served)
        copies = self.copies(served)
        if with_holder:
            document["holder"] = _holder(copies)
        return Made(raw=pack(document), document=document, copies=copies, served=served)

    def copies(self, served: Served) -> Copies:
        """What the holder of the key kept."""
        request, service, rows = served.request, served.service, served.auction.rows
        return Copies(
            request=request.body,
            response=request.response(service.tokens, finish=service.finish),
            salt=request.salts.root,
            account_secret=request.account_secret,
            tokenizer=SpaceCounter(),
            book={"rows": rows} if len(rows) > MOST_ROWS_INSIDE else None,
        )

    def document(self, served: Served) -> Json:
        """The bundle's document, laid out as a coordinator does."""
        legs = served.service.legs
        checkpoint, note = self.ledger.checkpoint(self.epoch)
        settled = self.ledger.batch_over(served.index)
        named = {served.receipt.message.epoch, checkpoint.message.epoch}
        named |= {leg.award.message.epoch for leg in legs} & self.epochs.keys()
        named.add(served.auction.header.epoch)
        if settled:
            named.add(settled.batch.message.epoch)
        document: Json = {
            "version": 1,
            "chain": {
                "chain_id": self.domain.chain_id,
                "settlement": to_hex(self.domain.settlement),
            },
            "receipt": served.receipt.to_json(),
            "grant": served.grant.to_json(),
            "job": served.request.job.to_json(),
            "awards": [leg.award.to_json() for leg in legs],
            "failures": [leg.failure.to_json() for leg in legs if leg.failure],
            "completions": [leg.completion.to_json() for leg in legs if leg.completion],
            "transcript": _transcript(served.auction),
            "log": self._log_part(served) | {"checkpoint": checkpoint.to_json(), "note": note},
            "epochs": [_epoch_part(self.epochs[n]) for n in sorted(named & self.epochs.keys())],
            "model_card": parse_json(CARD.to_json()),
        }
        if served.service.delivery:
            document["delivery"] = served.service.delivery.to_json()
        if settled:
            document["batch"] = self._batch_part(served, settled)
        return document

    def _log_part(self, served: Served) -> Json:
        size = len(self.ledger.tree)
        own = self.ledger.starts.get(served.receipt.message.epoch, self.ledger.starts[1])
        part = {
            "index": served.index,
            "inclusion": _hexes(self.ledger.tree.inclusion_proof(served.index, size)),
            "epoch_start": self._start_part(own),
        }
        later = [n for n in self.epochs if n > own.message.epoch]
        if later:
            part["next_epoch_start"] = self._start_part(self.ledger.starts[min(later)])
        return part

    def _start_part(self, start: Signed[EpochStart]) -> Json:
        proof = self.ledger.tree.inclusion_proof(start.message.size, len(self.ledger.tree))
        return start.to_json() | {"inclusion": _hexes(proof)}

    def _batch_part(self, served: Served, settled: Settled) -> Json:
        batch, tree = settled.batch.message, self.ledger.tree
        statements = settled.netting.statements
        over_statements = Tree(leaf_hash(entry.to_bytes()) for entry in statements)
        smaller, larger = sorted((len(tree), batch.new_size))
        return {
            "batch": settled.batch.to_json(),
            "inclusion": _hexes(tree.inclusion_proof(served.index, batch.new_size)),
            "consistency": _hexes(tree.consistency_proof(smaller, larger)),
            "statements": [
                {
                    "entry": to_hex(entry.to_bytes()),
                    "index": number,
                    "inclusion": _hexes(over_statements.inclusion_proof(number, len(statements))),
                }
                for number, entry in enumerate(statements)
                if _concerns(entry, served.receipt.message)
            ],
        }

    def _compose(
        self,
        parties: Parties,
        request: Request,
        auction: Auction,
        service: Service,
        received_ms: int,
        scenario: Scenario,
    ) -> Receipt:
        delivery, rules = service.delivery, self.epoch.parameters
        reason = Reason.NO_NODES_AVAILABLE if not scenario.nodes else Reason.NO_NODES_WITHIN_LIMITS
        case = Case(
            job=request.job.message,
            job_digest=request.job.digest(self.domain),
            grant=parties.grant.message,
            held=Held(
                fingerprint=CARD.fingerprint,
                nonce=auction.header.nonce,
                bids_root=auction.root,
                bids=auction.header.eligible,
            ),
            line=service.attempts(parties),
            award_digests=[leg.award.digest(self.domain) for leg in service.legs],
            delivery=delivery.message if delivery else None,
            delivery_digest=delivery.digest(self.domain) if delivery else bytes(32),
            unserved_reason=int(reason),
            received_ms=received_ms,
            closed_ms=self.clock(),
            reserve_units=auction.header.reserve,
            fee_bps=[rules.fee_bps] * len(service.legs),
            tolerance=Tolerance(rules.tolerance_tokens, rules.tolerance_ppm),
        )
        origin = Origin(
            log_id=self.parties.log_id,
            epoch=self.epoch.number,
            measurement=measurement(parse(self.epoch.document).pcrs),
            parameters_digest=rules.digest(),
        )
        return compose(case, origin, self.ledger.books)

    def _register(self) -> None:
        now_ms = self.clock()
        for node in self.parties.nodes:
            fact = NodeFact(registered_at_ms=now_ms, payout=node.payout)
            self.chain.nodes[node.key.address] = fact
        self.chain.models[MODEL_KEY] = ModelFact(
            fingerprint=CARD.fingerprint,
            ratio_ppm=RATIO_PPM,
            tokenizer_digest=CARD.tokenizer_digest,
        )


def _transcript(auction: Auction) -> Json:
    few = len(auction.rows) <= MOST_ROWS_INSIDE
    return auction.document | ({"rows": auction.rows} if few else {})


def _epoch_part(epoch: EpochParty) -> Json:
    return {
        "number": epoch.number,
        "manifest": epoch.manifest.to_json(),
        "parameters": epoch.parameters.to_json(),
        "document": b64encode(epoch.document).decode(),
        "verdicts": [],
    }


def _holder(copies: Copies) -> Json:
    members: Json = {"request": copies.request, "response": copies.response}
    for name in ("salt", "account_secret"):
        value = getattr(copies, name)
        if value is not None:
            members[name] = to_hex(value)
    return members


def _concerns(entry: Statement, receipt: Receipt) -> bool:
    nodes = {segment.node for segment in receipt.segments if segment.rank}
    if entry.role == Role.ACCOUNT:
        party = party_of_account(receipt.payer, receipt.account) if any(receipt.account) else b""
        return entry.party == party
    address = entry.party[12:]
    return address in nodes if entry.role == Role.NODE else address == receipt.payer


def _hexes(hashes: list[bytes]) -> list[str]:
    return [to_hex(value) for value in hashes]
