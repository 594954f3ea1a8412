"""V10: the receipt is in the log, and the log is anchored on chain."""

from pinaivu.checkpoints import verify_note
from pinaivu.keccak import keccak
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.proofs import verify_consistency, verify_inclusion
from pinaivu.messages import Batch
from pinaivu.verify.case import Case
from pinaivu.verify.contents import BatchPart
from pinaivu.verify.findings import Finding, Lacks, Refuted, require, require_equal, shown


def logged(case: Case) -> Finding:
    """V10: one leaf under checkpoint, batch and anchor; one history from the one to the other.

    Not proven: that nobody was shown another root beside the anchored one (two signed checkpoints
    of one size with different roots are a fault provable on chain).
    """
    _require_checkpoint(case)
    part = case.contents.batch
    if part is None:
        raise Lacks("the receipt is under a signed checkpoint; no batch settles it yet")
    _require_batch(case, part)
    if case.chain is None:
        raise Lacks("the receipt is under a signed batch; that it is anchored takes the chain")
    batch = part.batch.message
    word = case.chain.anchor_word(batch.log_id, batch.sequence)
    if word is None:
        raise Lacks(f"batch {batch.sequence} is not settled on chain yet")
    require_equal(word, anchor_word(batch, case.digest(part.batch)), "the anchor on chain")
    return Finding(
        evidence=f"leaf {case.contents.log.index} is in batch {batch.sequence}, anchored on chain",
        facts={
            "index": case.contents.log.index,
            "checkpoint_size": case.contents.log.checkpoint.message.size,
            "sequence": batch.sequence,
            "root": shown(batch.new_root),
        },
    )


def anchor_word(batch: Batch, batch_digest: bytes) -> bytes:
    """What the contract holds for a settled batch: the hash of six words (types.md, Batch)."""
    numbers = (n.to_bytes(32) for n in (batch.sequence, batch.prev_size, batch.new_size))
    return keccak(batch.log_id + b"".join(numbers) + batch.new_root + batch_digest)


def _require_checkpoint(case: Case) -> None:
    log, receipt = case.contents.log, case.receipt
    checkpoint = log.checkpoint.message
    require(checkpoint.epoch >= receipt.epoch, "the checkpoint is of an earlier epoch")
    keys = case.keys(checkpoint.epoch)
    noted = verify_note(log.note, case.domain, receipt.log_id, keys)
    if noted != log.checkpoint:
        raise Refuted("the checkpoint is not the one of its note")
    leaf = leaf_hash(case.digest(case.contents.receipt))
    verify_inclusion(leaf, log.index, checkpoint.size, log.inclusion, checkpoint.root)


def _require_batch(case: Case, part: BatchPart) -> None:
    log, batch = case.contents.log, part.batch.message
    require_equal(batch.log_id, case.receipt.log_id, "the batch's log")
    require(batch.epoch >= case.receipt.epoch, "the batch is of an earlier epoch")
    case.require_signed(part.batch, case.signer(batch.epoch), "the batch")
    inside = batch.prev_size <= log.index < batch.new_size
    require(inside, f"leaf {log.index} is outside [{batch.prev_size}, {batch.new_size})")
    leaf = leaf_hash(case.digest(case.contents.receipt))
    verify_inclusion(leaf, log.index, batch.new_size, part.inclusion, batch.new_root)
    checkpoint = log.checkpoint.message
    one, other = (checkpoint.size, checkpoint.root), (batch.new_size, batch.new_root)
    smaller, larger = (one, other) if one[0] <= other[0] else (other, one)
    verify_consistency(*smaller, *larger, part.consistency)
