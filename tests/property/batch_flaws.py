"""Batches that are wrong in one way each, whatever else would happen to them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from msgspec.structs import replace as replaced

from pinaivu.chain.records import Anchor
from pinaivu.keys import SecretKey
from pinaivu.merkle.hashing import EMPTY_ROOT, leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch
from tests.integration.timed_chain import key_of
from tests.property.money_model import Refused

UNKNOWN_LOG: Final = b"\x99" * 32


@dataclass
class Draft:
    """A batch before it is signed, and how it will be submitted."""

    batch: Batch
    key: SecretKey
    proof: list[bytes]
    last: Anchor
    leaves: list[bytes]
    ended_key: SecretKey | None
    history: Refused | None = None


Flaw = Callable[[Draft], None]
FLAWS: Final[dict[str, Flaw]] = {}


def flaw(function: Flaw) -> Flaw:
    """Something that a submitter or a signer could do to a batch."""
    FLAWS[function.__name__] = function
    return function


@flaw
def unbalanced(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, fees=draft.batch.fees + 1)


@flaw
def rows_descending(draft: Draft) -> None:
    rows = draft.batch.debits
    turned = b"".join(rows[at : at + 32] for at in range(len(rows) - 32, -1, -32))
    draft.batch = replaced(draft.batch, debits=turned)


@flaw
def a_row_twice(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, credits=draft.batch.credits[:32] + draft.batch.credits)


@flaw
def a_zero_row(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, credits=b"\xff" * 20 + bytes(12) + draft.batch.credits)


@flaw
def half_a_row(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, debits=draft.batch.debits[:-7])


@flaw
def a_batch_too_early(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, sequence=draft.batch.sequence + 1)


@flaw
def a_batch_again(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, sequence=draft.batch.sequence - 1)


@flaw
def no_leaves(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, new_size=draft.batch.prev_size)


@flaw
def another_epoch(draft: Draft) -> None:
    draft.batch = replaced(draft.batch, epoch=draft.batch.epoch + 1)


@flaw
def another_signer(draft: Draft) -> None:
    draft.key = key_of("thief")


@flaw
def the_last_epochs_signer(draft: Draft) -> None:
    draft.key = draft.ended_key or draft.key


@flaw
def another_anchor(draft: Draft) -> None:
    draft.last = replace(draft.last, prev_size=draft.last.prev_size + 1)


@flaw
def an_unknown_log(draft: Draft) -> None:
    draft.batch = replaced(
        draft.batch, log_id=UNKNOWN_LOG, sequence=1, prev_size=0, prev_root=EMPTY_ROOT
    )
    draft.proof, draft.last = [], Anchor.none(UNKNOWN_LOG)


@flaw
def a_hash_too_many(draft: Draft) -> None:
    draft.proof = [*draft.proof, bytes(32)]
    draft.history = Refused("WrongProofLength", len(draft.proof))


@flaw
def a_hash_too_few(draft: Draft) -> None:
    if draft.proof:
        draft.proof = draft.proof[:-1]
        draft.history = Refused("WrongProofLength", len(draft.proof))


@flaw
def a_rewritten_leaf(draft: Draft) -> None:
    """Another history under the same anchor, with the best proof that it has."""
    old = draft.batch.prev_size
    if not old:
        return
    other = Tree([leaf_hash(b"forged"), *draft.leaves[1:]])
    draft.batch = replaced(draft.batch, new_root=other.root())
    draft.proof = other.consistency_proof(old, len(other))
    if old & (old - 1):
        draft.history = Refused("RootMismatch", draft.batch.prev_root, other.root(old))
    else:  # the old root is not in the proof, so it is the new one that comes out differently
        draft.history = Refused("RootMismatch", other.root(), Tree(draft.leaves).root())
