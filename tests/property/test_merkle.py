"""Trees of random size and content, beyond the sizes the unit tests exhaust."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinaivu.merkle.hashing import leaf_hash, root_of
from pinaivu.merkle.proofs import InvalidProof, verify_consistency, verify_inclusion
from pinaivu.merkle.tree import Tree
from tests.unit import naive_merkle as naive

SIZE = 5_000
ENTRIES = naive.entries_of(SIZE)
TREE = Tree(leaf_hash(entry) for entry in ENTRIES)
SIZES = st.integers(1, SIZE)


@given(st.lists(st.binary(max_size=100), max_size=40))
def test_the_root_of_any_entries_is_the_defined_one(entries: list[bytes]) -> None:
    assert root_of(entries) == naive.tree_hash(entries)


@given(SIZES, st.data())
def test_inclusion_is_defined_and_verified(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = TREE.inclusion_proof(index, size)
    assert proof == naive.path(index, ENTRIES[:size])
    verify_inclusion(leaf_hash(ENTRIES[index]), index, size, proof, TREE.root(size))


@given(SIZES, SIZES)
def test_consistency_is_defined_and_verified(one: int, other: int) -> None:
    old, new = sorted((one, other))
    proof = TREE.consistency_proof(old, new)
    assert proof == naive.proof(old, ENTRIES[:new])
    verify_consistency(old, TREE.root(old), new, TREE.root(new), proof)


@given(SIZES, SIZES, st.lists(st.sampled_from([bytes(32), TREE.root(), TREE.leaf(0)]), max_size=14))
def test_a_made_up_growth_is_refused(one: int, other: int, proof: list[bytes]) -> None:
    """No rewritten history passes: the old root is of other leaves."""
    old, new = sorted((one, other))
    rewritten = root_of([b"rewritten", *ENTRIES[1:old]])
    for attempt in (proof, TREE.consistency_proof(old, new)):
        with pytest.raises(InvalidProof):
            verify_consistency(old, rewritten, new, TREE.root(new), attempt)


@given(SIZES, st.data(), st.binary(min_size=32, max_size=32))
def test_a_foreign_leaf_is_refused(size: int, data: st.DataObject, leaf: bytes) -> None:
    index = data.draw(st.integers(0, size - 1))
    with pytest.raises(InvalidProof):
        verify_inclusion(leaf, index, size, TREE.inclusion_proof(index, size), TREE.root(size))


@given(SIZES, SIZES, st.data())
def test_a_flipped_bit_is_refused(one: int, other: int, data: st.DataObject) -> None:
    old, new = sorted((one, other))
    index = old - 1
    growth = [TREE.root(old), TREE.root(new), *TREE.consistency_proof(old, new)]
    membership = [TREE.leaf(index), TREE.root(new), *TREE.inclusion_proof(index, new)]
    v = flipped(growth, data)
    with pytest.raises(InvalidProof):
        verify_consistency(old, v[0], new, v[1], v[2:])
    v = flipped(membership, data)
    with pytest.raises(InvalidProof):
        verify_inclusion(v[0], index, new, v[2:], v[1])


def flipped(values: list[bytes], data: st.DataObject) -> list[bytes]:
    at = data.draw(st.integers(0, len(values) - 1))
    mask = 1 << data.draw(st.integers(0, 255))
    changed = (int.from_bytes(values[at]) ^ mask).to_bytes(32)
    return [*values[:at], changed, *values[at + 1 :]]
