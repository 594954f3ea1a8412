"""V1 and V2: what code signed, and whether its key was the one to sign this leaf."""

from typing import Final

from pinaivu.auction.transcript import Header
from pinaivu.encoding import from_hex
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.proofs import verify_inclusion
from pinaivu.verify.attestations import Attested
from pinaivu.verify.case import ZERO, Case
from pinaivu.verify.contents import EpochLeaf, EpochPart
from pinaivu.verify.facts import ChainFacts, EpochFact
from pinaivu.verify.findings import (
    Finding,
    Lacks,
    Outcome,
    Refuted,
    require,
    require_equal,
    shown,
)

CLOCK_SKEW_MS: Final = 120_000
"""How far a block's time and the clock of an enclave may lie apart (as `attestation.policy`)."""


def attested(case: Case) -> Finding:
    """V1: AWS's hypervisor vouches for each epoch's key, manifest and parameters; both allowed.

    Not proven: that the measured code does what its source says, nor that the measurement is of
    that source (a reproducible build shows it), nor that the hypervisor is honest. Under a policy
    that accepts simulated documents nothing is proven at all, and the outcome says so.
    """
    _require_named_epochs(case)
    found = {part.number: _attested(case, part) for part in case.contents.epochs}
    own, receipt = case.epoch(case.receipt.epoch), case.receipt
    require_equal(receipt.measurement, found[own.number].measurement, "the receipt's measurement")
    require_equal(
        receipt.parameters_digest, own.parameters_digest, "the receipt's parameters digest"
    )
    if any(part.verdicts for part in case.contents.epochs):
        raise Lacks("the bundle holds verdicts of a quorum, which this version does not read")
    simulated = any(document.simulated for document in found.values())
    facts = {
        "measurement": shown(receipt.measurement),
        "parameters_digest": shown(receipt.parameters_digest),
        "epochs": sorted(found),
        "pair_on_chain": case.chain is not None,
    }
    if simulated:
        evidence = "the attestation is SIMULATED: nothing is known of the code that signed"
        return Finding(evidence=evidence, facts=facts, outcome=Outcome.SIMULATED)
    if case.chain is None:
        raise Lacks("the documents are AWS's; whether the code is allowed takes the chain")
    return Finding(evidence="attested by AWS; code and parameters were allowed", facts=facts)


def covered(case: Case) -> Finding:
    """V2: the key was registered and in force, and its epoch covers this leaf of the log.

    Not proven: that no start of an epoch in between was left out of the bundle (that takes the
    whole log), nor, without a look into it, that a superseded receipt is not in the log as well.
    """
    receipt, log = case.receipt, case.contents.log
    _require_epoch_leaf(case, log.epoch_start, receipt.epoch)
    start = log.epoch_start.signed.message.size
    require(start < log.index, f"leaf {log.index} lies before its epoch, which starts at {start}")
    _require_before_next(case)
    for part in case.contents.epochs:
        manifest = part.manifest
        require_equal(manifest.log_id, receipt.log_id, f"epoch {part.number}'s log")
        said = (manifest.chain_id, manifest.settlement)
        require_equal(said, (case.domain.chain_id, case.domain.settlement), "a manifest's chain")
    _require_superseded(case)
    if case.chain is None:
        raise Lacks("the epoch covers the leaf; that its key is registered takes the chain")
    for part in case.contents.epochs:
        _require_registered(case.chain, receipt.log_id, part)
    fact = _registered(case.chain, receipt.log_id, receipt.epoch)
    _require_in_force(fact, receipt.closed_ms)
    return Finding(
        evidence=f"epoch {receipt.epoch} is registered and covers leaf {log.index}",
        facts={"epoch": receipt.epoch, "key": shown(fact.key), "start": start, "leaf": log.index},
    )


def _require_named_epochs(case: Case) -> None:
    contents = case.contents
    named = {case.receipt.epoch, contents.log.checkpoint.message.epoch}
    named |= {award.message.epoch for award in contents.awards}
    if contents.batch:
        named.add(contents.batch.batch.message.epoch)
    numbers = [part.number for part in contents.epochs]
    if contents.transcript is not None:  # an auction may be of an epoch that nothing else names
        held = Header.from_bytes(from_hex(contents.transcript.get("header"))).epoch
        named |= {held} & set(numbers)
    require_equal(numbers, sorted(named), "the list of epochs")


def _attested(case: Case, part: EpochPart) -> Attested:
    manifest, fact = part.manifest, None
    require_equal(
        part.parameters_digest, manifest.parameters_digest, f"epoch {part.number}'s parameters"
    )
    if case.chain is not None:
        fact = _registered(case.chain, case.receipt.log_id, part.number)
    document = case.attestations.check(
        part,
        anchored_ms=fact.activated_at_ms if fact else None,
        accepts_simulated=case.policy.accepts_simulated,
    )
    if fact:
        require_equal(document.payload_digest, fact.payload_digest, "the registered document")
        _require_pair_allowed(document, part, fact)
    return document


def _require_pair_allowed(document: Attested, part: EpochPart, fact: EpochFact) -> None:
    pair = (document.measurement, part.parameters_digest)
    require_equal(pair, (fact.measurement, fact.parameters_digest), "the registered code")
    revoked = fact.pair_revoked_at_ms and fact.pair_revoked_at_ms <= fact.activated_at_ms
    allowed = fact.pair_allowed_from_ms <= fact.activated_at_ms and not revoked
    require(allowed, f"epoch {part.number}'s code was not allowed when it was activated")


def _require_epoch_leaf(case: Case, leaf: EpochLeaf, epoch: int) -> None:
    """The leaf stands at its own size, is signed by its epoch, and names that epoch's manifest."""
    start, checkpoint = leaf.signed.message, case.contents.log.checkpoint.message
    require_equal((start.log_id, start.epoch), (case.receipt.log_id, epoch), "an epoch's start")
    verify_inclusion(
        leaf_hash(case.digest(leaf.signed)),
        start.size,
        checkpoint.size,
        leaf.inclusion,
        checkpoint.root,
    )
    if epoch in case.epochs:
        case.require_signed(leaf.signed, case.signer(epoch), "an epoch's start")
        digest = case.epoch(epoch).manifest_digest
        require_equal(start.manifest_digest, digest, f"epoch {epoch}'s manifest digest")


def _require_before_next(case: Case) -> None:
    log, epoch = case.contents.log, case.receipt.epoch
    if log.next_epoch_start is None:
        if log.checkpoint.message.epoch > epoch:
            raise Lacks("a later epoch signs the checkpoint, and its first leaf is missing")
        return
    later = log.next_epoch_start.signed.message
    require(later.epoch > epoch, f"epoch {later.epoch} does not follow epoch {epoch}")
    _require_epoch_leaf(case, log.next_epoch_start, later.epoch)
    require(log.index < later.size, f"leaf {log.index} lies in epoch {later.epoch}")


def _require_superseded(case: Case) -> None:
    receipt, former = case.receipt, case.contents.superseded
    if former is None:
        require_equal(receipt.supersedes, ZERO, "what the receipt supersedes, without it here")
        return
    require_equal(receipt.supersedes, case.digest(former), "what the receipt supersedes")
    message = former.message
    same_job = (message.gateway, message.job_id, message.log_id)
    require_equal(same_job, (receipt.gateway, receipt.job_id, receipt.log_id), "the former job")
    require(message.epoch < receipt.epoch, "a superseded receipt is of an earlier epoch")
    if case.chain is None:
        raise Lacks("the chain: it has the key that signed the superseded receipt")
    key = _registered(case.chain, receipt.log_id, message.epoch).key
    case.require_signed(former, key, "the superseded receipt")


def _registered(chain: ChainFacts, log_id: bytes, epoch: int) -> EpochFact:
    fact = chain.epoch(log_id, epoch)
    if fact is None:
        raise Refuted(f"the chain knows no epoch {epoch} of this log")
    return fact


def _require_registered(chain: ChainFacts, log_id: bytes, part: EpochPart) -> None:
    fact = _registered(chain, log_id, part.number)
    require_equal(part.signer, fact.key, f"epoch {part.number}'s key")
    require_equal(part.manifest_digest, fact.manifest_digest, f"epoch {part.number}'s manifest")


def _require_in_force(fact: EpochFact, at_ms: int) -> None:
    begun = fact.activated_at_ms <= at_ms + CLOCK_SKEW_MS
    require(begun, f"the epoch was activated at {fact.activated_at_ms}, after {at_ms}")
    for what, ended_ms in (("expired", fact.expires_at_ms), ("revoked", fact.revoked_at_ms)):
        holds = not ended_ms or at_ms < ended_ms
        require(holds, f"the epoch was {what} at {ended_ms}, before the job closed at {at_ms}")
