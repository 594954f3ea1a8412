"""Merkle trees as RFC 9162 defines them with SHA-256, and their C2SP tlog-tiles resources.

One code for all trees: log, statements, transcripts, books.

- `hashing`: leaf and node hashes, the root of a list of entries;
- `tree`: an append-only tree in memory that makes proofs;
- `padded`: a tree over entries that change in place, as a book's;
- `proofs`: stateless verification of inclusion and consistency;
- `tiles`: paths and contents of the public log resources; the path arithmetic stands alone.

Nothing here signs, stores or fetches. What a proof does not prove: that its root is the one
everybody else sees; a signed checkpoint, an anchor on chain and other readers do that.
"""
