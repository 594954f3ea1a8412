// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title RFC 9162 Merkle trees over SHA-256
/// @notice Checks proofs; builds no tree. Every proof must be consumed exactly: too short and too long
/// are both refused, so a statement has one proof.
library MerkleLog {
    /// @notice Root of the tree without leaves, SHA-256 of nothing.
    bytes32 internal constant EMPTY_ROOT = 0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855;

    error IndexBeyondSize(uint64 index, uint64 size);
    error WrongProofLength(uint256 given);
    error RootMismatch(bytes32 expected, bytes32 computed);
    error TreeShrunk(uint64 oldSize, uint64 newSize);

    /// @notice Hash of a leaf.
    function leafHash(bytes32 entry) internal pure returns (bytes32) {
        return sha256(bytes.concat(hex"00", entry));
    }

    /// @notice Hash of an inner node.
    function nodeHash(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(bytes.concat(hex"01", left, right));
    }

    /// @notice Reverts unless `leaf` is leaf `index` of the tree (`size`, `root`). RFC 9162, 2.1.3.2.
    function checkInclusion(
        bytes32 leaf,
        uint64 index,
        uint64 size,
        bytes32 root,
        bytes32[] calldata proof
    ) internal pure {
        if (index >= size) revert IndexBeyondSize(index, size);
        uint256 node = index;
        uint256 last = size - 1;
        bytes32 hash = leaf;
        for (uint256 i = 0; i < proof.length; ++i) {
            if (last == 0) revert WrongProofLength(proof.length);
            if ((node & 1) == 1 || node == last) {
                hash = nodeHash(proof[i], hash);
                (node, last) = _climbToRightChild(node, last);
            } else {
                hash = nodeHash(hash, proof[i]);
            }
            node >>= 1;
            last >>= 1;
        }
        if (last != 0) revert WrongProofLength(proof.length);
        if (hash != root) revert RootMismatch(root, hash);
    }

    /// @notice Reverts unless the tree (`newSize`, `newRoot`) extends (`oldSize`, `oldRoot`).
    /// RFC 9162, 2.1.4.2, where from size 0 and to the same size the proof is empty.
    function checkConsistency(
        uint64 oldSize,
        bytes32 oldRoot,
        uint64 newSize,
        bytes32 newRoot,
        bytes32[] calldata proof
    ) internal pure {
        if (oldSize > newSize) revert TreeShrunk(oldSize, newSize);
        if (oldSize == 0) {
            if (oldRoot != EMPTY_ROOT) revert RootMismatch(oldRoot, EMPTY_ROOT);
        }
        if (oldSize == 0 || oldSize == newSize) {
            if (proof.length != 0) revert WrongProofLength(proof.length);
            if (oldSize == newSize && oldRoot != newRoot) revert RootMismatch(newRoot, oldRoot);
            return;
        }
        _checkExtension(oldSize, oldRoot, newSize, newRoot, proof);
    }

    /// @dev 0 < oldSize < newSize. The proof begins with the largest subtree that both trees share at the
    /// old tree's right edge; it is left out where it is the whole old tree, at a power of two.
    function _checkExtension(
        uint64 oldSize,
        bytes32 oldRoot,
        uint64 newSize,
        bytes32 newRoot,
        bytes32[] calldata proof
    ) private pure {
        uint256 node = oldSize - 1;
        uint256 last = newSize - 1;
        while ((node & 1) == 1) {
            node >>= 1;
            last >>= 1;
        }
        uint256 next = 0;
        bytes32 oldHash = oldRoot;
        if (node != 0) {
            if (proof.length == 0) revert WrongProofLength(0);
            oldHash = proof[0];
            next = 1;
        }
        bytes32 newHash = oldHash;
        for (; next < proof.length; ++next) {
            if (last == 0) revert WrongProofLength(proof.length);
            bytes32 sibling = proof[next];
            if ((node & 1) == 1 || node == last) {
                oldHash = nodeHash(sibling, oldHash);
                newHash = nodeHash(sibling, newHash);
                (node, last) = _climbToRightChild(node, last);
            } else {
                newHash = nodeHash(newHash, sibling);
            }
            node >>= 1;
            last >>= 1;
        }
        if (last != 0) revert WrongProofLength(proof.length);
        if (oldHash != oldRoot) revert RootMismatch(oldRoot, oldHash);
        if (newHash != newRoot) revert RootMismatch(newRoot, newHash);
    }

    /// @dev Skips the levels at which the node is the last one without a sibling: no hash stands there.
    function _climbToRightChild(uint256 node, uint256 last) private pure returns (uint256, uint256) {
        while ((node & 1) == 0 && node != 0) {
            node >>= 1;
            last >>= 1;
        }
        return (node, last);
    }
}
