"""Roots, inclusion and consistency of small trees, exhaustively, against the naive definition.

The proofs of every size up to 300 come from `Tree`, and are checked against the definition and by
the verifier. Every bit of every proof and input of a set of sizes is flipped once and refused.
"""

from collections.abc import Iterator
from functools import cache

import pytest

from pinaivu.errors import InvalidEncoding
from pinaivu.merkle.hashing import EMPTY_ROOT, leaf_hash, node_hash, root_of, root_of_leaves
from pinaivu.merkle.proofs import InvalidProof, verify_consistency, verify_inclusion
from pinaivu.merkle.tree import Tree
from tests.unit import naive_merkle as naive

LARGEST = 300
PAIRS_UP_TO = 130
ENTRIES = naive.entries_of(LARGEST)
RAGGED_SIZES = [1, 2, 3, 5, 6, 7, 8, 11, 13]


@cache
def tree() -> Tree:
    return Tree(leaf_hash(entry) for entry in ENTRIES)


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert EMPTY_ROOT.hex() == expected
    assert root_of([]) == Tree().root() == Tree().root(0) == EMPTY_ROOT


def test_known_roots() -> None:
    """Roots of the first test entries of the certificate transparency projects."""
    entries = [bytes.fromhex(x) for x in ("", "00", "10", "2021", "3031", "40414243")]
    assert root_of(entries[:1]).hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert root_of(entries).hex() == (
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"
    )


def test_roots_of_every_size() -> None:
    for size in range(LARGEST + 1):
        expected = naive.tree_hash(ENTRIES[:size])
        assert tree().root(size) == expected
        assert root_of(ENTRIES[:size]) == expected
        assert root_of_leaves(leaf_hash(entry) for entry in ENTRIES[:size]) == expected


def test_every_leaf_of_every_size_is_proven() -> None:
    for size in range(1, LARGEST + 1):
        root = tree().root(size)
        for index in range(size):
            proof = tree().inclusion_proof(index, size)
            verify_inclusion(leaf_hash(ENTRIES[index]), index, size, proof, root)


def test_inclusion_proofs_are_the_defined_ones() -> None:
    for size in (*range(1, 70), 127, 128, 129, 255, 256, 257, 300):
        for index in range(0, size, 1 + size // 40):
            expected = naive.path(index, ENTRIES[:size])
            assert tree().inclusion_proof(index, size) == expected


def test_every_pair_of_sizes_is_consistent() -> None:
    for new in range(PAIRS_UP_TO + 1):
        for old in range(new + 1):
            proof = tree().consistency_proof(old, new)
            verify_consistency(old, tree().root(old), new, tree().root(new), proof)


def test_consistency_proofs_are_the_defined_ones() -> None:
    for new in range(1, 70):
        for old in range(1, new + 1):
            assert tree().consistency_proof(old, new) == naive.proof(old, ENTRIES[:new])


def flips(value: bytes) -> Iterator[bytes]:
    for bit in range(len(value) * 8):
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


@pytest.mark.parametrize("size", RAGGED_SIZES)
def test_every_flipped_bit_of_an_inclusion_is_refused(size: int) -> None:
    root = tree().root(size)
    for index in range(size):
        values = [leaf_hash(ENTRIES[index]), root, *tree().inclusion_proof(index, size)]
        for at, value in enumerate(values):
            for flipped in flips(value):
                v = [*values[:at], flipped, *values[at + 1 :]]
                with pytest.raises(InvalidProof):
                    verify_inclusion(v[0], index, size, v[2:], v[1])


@pytest.mark.parametrize("new", RAGGED_SIZES)
def test_every_flipped_bit_of_a_consistency_is_refused(new: int) -> None:
    for old in range(1, new + 1):
        values = [tree().root(old), tree().root(new), *tree().consistency_proof(old, new)]
        for at, value in enumerate(values):
            for flipped in flips(value):
                v = [*values[:at], flipped, *values[at + 1 :]]
                with pytest.raises(InvalidProof):
                    verify_consistency(old, v[0], new, v[1], v[2:])


def test_a_leaf_at_another_index_is_refused() -> None:
    for size in range(2, 40):
        for index in range(size):
            leaf, proof = leaf_hash(ENTRIES[index]), tree().inclusion_proof(index, size)
            for other in range(size):
                if other != index:
                    with pytest.raises(InvalidProof):
                        verify_inclusion(leaf, other, size, proof, tree().root(size))


def test_proofs_too_long_or_too_short_are_refused() -> None:
    for size in range(1, 40):
        root = tree().root(size)
        for index in range(size):
            leaf, proof = leaf_hash(ENTRIES[index]), tree().inclusion_proof(index, size)
            for wrong in ([*proof, root], [*proof, bytes(32)], proof[:-1], proof[1:]):
                if wrong != proof:
                    with pytest.raises(InvalidProof):
                        verify_inclusion(leaf, index, size, wrong, root)
            if index:
                _consistency_of_wrong_length_is_refused(index, size)


def _consistency_of_wrong_length_is_refused(old: int, new: int) -> None:
    proof = tree().consistency_proof(old, new)
    roots = tree().root(old), tree().root(new)
    for wrong in ([*proof, roots[1]], [*proof, bytes(32)], proof[:-1], proof[1:], []):
        if wrong != proof:
            with pytest.raises(InvalidProof):
                verify_consistency(old, roots[0], new, roots[1], wrong)


def test_a_proof_that_climbs_beyond_the_root_is_refused() -> None:
    """Even where the roots given are those it climbs to: every hash must belong to the size."""
    extra, leaf = bytes(32), leaf_hash(ENTRIES[0])
    with pytest.raises(InvalidProof, match="too many for leaf 0 of 1"):
        verify_inclusion(leaf, 0, 1, [extra], node_hash(extra, leaf))
    above = [node_hash(extra, tree().root(size)) for size in (3, 4)]
    proof = [*tree().consistency_proof(3, 4), extra]
    with pytest.raises(InvalidProof, match="too many from 3 to 4"):
        verify_consistency(3, above[0], 4, above[1], proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (4, 3)])
def test_a_leaf_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(InvalidProof, match="no leaf"):
        verify_inclusion(leaf_hash(ENTRIES[0]), index, size, [], tree().root(max(size, 0)))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_hash_of_another_length_is_refused(length: int) -> None:
    leaf, root = leaf_hash(ENTRIES[0]), tree().root(2)
    with pytest.raises(InvalidProof, match="32 bytes"):
        verify_inclusion(leaf, 0, 2, [bytes(length)], root)
    with pytest.raises(InvalidProof, match="32 bytes"):
        verify_consistency(1, leaf, 2, root, [bytes(length)])
    with pytest.raises(InvalidEncoding, match="32 bytes"):
        Tree().append(bytes(length))


REFUSED_GROWTH = [
    ("shrinks", 3, 2, b"", b"", [], "does not grow"),
    ("negative", -1, 2, b"", b"", [], "does not grow"),
    ("equal sizes, other roots", 2, 2, b"", b"x", [], "two roots of one size"),
    ("equal sizes, a proof", 2, 2, b"", b"", [bytes(32)], "the proof is empty"),
    ("from empty, other old root", 0, 2, b"x", b"", [], "not the empty tree's"),
    ("from empty, a proof", 0, 2, b"", b"", [bytes(32)], "the proof is empty"),
    ("empty to empty, other new root", 0, 0, b"", b"x", [], "not the empty tree's"),
    ("no proof at all", 2, 3, b"", b"", [], "too few"),
    ("no proof at all from a ragged tree", 3, 4, b"", b"", [], "proof is empty"),
]


@pytest.mark.parametrize(
    ("old", "new", "old_root", "new_root", "proof", "reason"),
    [row[1:] for row in REFUSED_GROWTH],
    ids=[row[0] for row in REFUSED_GROWTH],
)
def test_growth_is_refused(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: list[bytes], reason: str
) -> None:
    """An empty root in the table stands for the true one, anything else for a false one."""
    true_old, true_new = tree().root(max(old, 0)), tree().root(new)
    old_root = true_old if not old_root else bytes(32)
    new_root = true_new if not new_root else bytes(32)
    with pytest.raises(InvalidProof, match=reason):
        verify_consistency(old, old_root, new, new_root, proof)


def test_an_entry_made_of_two_hashes_is_no_node() -> None:
    """Second preimages across the layers: leaf and node hashes never coincide."""
    left, right = (leaf_hash(entry) for entry in ENTRIES[:2])
    assert root_of([left + right]) != root_of(ENTRIES[:2])


@pytest.mark.parametrize(
    ("index", "size"), [(3, 3), (-1, 3), (0, 0), (0, LARGEST + 1), (0, -1), (LARGEST, LARGEST)]
)
def test_the_tree_proves_no_leaf_it_does_not_have(index: int, size: int) -> None:
    with pytest.raises(InvalidEncoding):
        tree().inclusion_proof(index, size)


@pytest.mark.parametrize(("old", "new"), [(3, 2), (-1, 2), (0, LARGEST + 1)])
def test_the_tree_proves_no_growth_it_did_not_have(old: int, new: int) -> None:
    with pytest.raises(InvalidEncoding):
        tree().consistency_proof(old, new)


@pytest.mark.parametrize("size", [-1, LARGEST + 1])
def test_the_tree_has_no_root_beyond_its_size(size: int) -> None:
    with pytest.raises(InvalidEncoding, match="of a tree of 300"):
        tree().root(size)


@pytest.mark.parametrize(
    ("height", "start", "stop"),
    [(0, 0, 301), (0, 2, 1), (0, -1, 1), (8, 0, 2), (9, 0, 1), (-1, 0, 0)],
)
def test_the_tree_has_no_such_subtrees(height: int, start: int, stop: int) -> None:
    with pytest.raises(InvalidEncoding, match="subtrees"):
        tree().hashes(height, start, stop)


def test_append_gives_the_index_and_keeps_older_answers() -> None:
    growing = Tree()
    for index, entry in enumerate(ENTRIES[:20]):
        assert growing.append(leaf_hash(entry)) == index
        assert growing.leaf(index) == leaf_hash(entry)
        assert len(growing) == index + 1
        assert growing.root(index // 2) == tree().root(index // 2)
        assert growing.root() == tree().root(index + 1)


def test_memory_is_two_hashes_per_leaf() -> None:
    stored = sum(len(level) for level in tree()._levels)
    assert stored < 2 * 32 * LARGEST
