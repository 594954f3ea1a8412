"""RFC 9162, section 2.1, written down as the recursive definitions it gives. Slow on purpose."""

import hashlib


def tree_hash(entries: list[bytes]) -> bytes:
    """MTH."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + tree_hash(entries[:k]) + tree_hash(entries[k:])).digest()


def path(m: int, entries: list[bytes]) -> list[bytes]:
    """PATH: the inclusion proof of entry m."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), tree_hash(entries[k:])]
    return [*path(m - k, entries[k:]), tree_hash(entries[:k])]


def proof(m: int, entries: list[bytes]) -> list[bytes]:
    """PROOF: the consistency proof from the first m entries."""
    return subproof(m, entries, complete=True)


def subproof(m: int, entries: list[bytes], *, complete: bool) -> list[bytes]:
    """SUBPROOF."""
    if m == len(entries):
        return [] if complete else [tree_hash(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], complete=complete), tree_hash(entries[k:])]
    return [*subproof(m - k, entries[k:], complete=False), tree_hash(entries[:k])]


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def entries_of(size: int) -> list[bytes]:
    """Distinct entries."""
    return [b"entry %d" % i for i in range(size)]
