// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleLog} from "../../contracts/libraries/MerkleLog.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";
import {Test} from "./support/Test.sol";

/// @dev The library behind an address, so that proofs are calldata and reverts can be expected.
contract MerkleLogHarness {
    function inclusion(
        bytes32 leaf,
        uint64 index,
        uint64 size,
        bytes32 root,
        bytes32[] calldata proof
    ) external view {
        MerkleLog.checkInclusion(leaf, index, size, root, proof);
    }

    function consistency(
        uint64 oldSize,
        bytes32 oldRoot,
        uint64 newSize,
        bytes32 newRoot,
        bytes32[] calldata proof
    ) external view {
        MerkleLog.checkConsistency(oldSize, oldRoot, newSize, newRoot, proof);
    }
}

contract MerkleLogTest is Test {
    uint64 private constant EVERY_SIZE_TO = 33;
    uint64 private constant DRAWN_SIZE_TO = 130;

    MerkleLogHarness private immutable HARNESS = new MerkleLogHarness();

    function test_LeavesAndNodesAreTaggedApart() external view {
        bytes32 entry = keccak256("entry");
        eq(MerkleLog.leafHash(entry), sha256(abi.encodePacked(uint8(0), entry)));
        eq(MerkleLog.nodeHash(entry, entry), sha256(abi.encodePacked(uint8(1), entry, entry)));
        eq(MerkleLog.EMPTY_ROOT, sha256(""));
    }

    function test_EveryLeafOfEverySmallTreeIsIncluded() external view {
        bytes32[] memory leaves = _leaves(EVERY_SIZE_TO);
        for (uint64 size = 1; size <= EVERY_SIZE_TO; ++size) {
            bytes32 root = ReferenceTree.root(leaves, size);
            for (uint64 index = 0; index < size; ++index) {
                bytes32[] memory proof = ReferenceTree.inclusion(leaves, index, size);
                HARNESS.inclusion(leaves[index], index, size, root, proof);
            }
        }
    }

    function test_EverySmallTreeExtendsEverySmallerOne() external view {
        bytes32[] memory leaves = _leaves(EVERY_SIZE_TO);
        for (uint64 size = 0; size <= EVERY_SIZE_TO; ++size) {
            bytes32 root = ReferenceTree.root(leaves, size);
            for (uint64 old = 0; old <= size; ++old) {
                bytes32[] memory proof = ReferenceTree.consistency(leaves, old, size);
                HARNESS.consistency(old, ReferenceTree.root(leaves, old), size, root, proof);
            }
        }
    }

    function testFuzz_InclusionHoldsForItsOwnIndexOnly(uint256 a, uint256 b, uint256 c) external view {
        uint64 size = uint64(bound(a, 2, DRAWN_SIZE_TO));
        uint64 index = uint64(bound(b, 0, size - 1));
        uint64 other = uint64((index + bound(c, 1, size - 1)) % size);
        bytes32[] memory leaves = _leaves(size);
        bytes32 root = ReferenceTree.root(leaves, size);
        bytes32[] memory proof = ReferenceTree.inclusion(leaves, index, size);
        HARNESS.inclusion(leaves[index], index, size, root, proof);
        _refusedInclusion(leaves[index], other, size, root, proof);
        _refusedInclusion(leaves[other], index, size, root, proof);
        _refusedInclusion(leaves[index], index, size, ReferenceTree.root(leaves, size - 1), proof);
    }

    function testFuzz_InclusionProofsAreConsumedExactly(uint256 a, uint256 b, uint8 c) external view {
        uint64 size = uint64(bound(a, 2, DRAWN_SIZE_TO));
        uint64 index = uint64(bound(b, 0, size - 1));
        bytes32[] memory leaves = _leaves(size);
        bytes32 root = ReferenceTree.root(leaves, size);
        bytes32[] memory proof = ReferenceTree.inclusion(leaves, index, size);
        _refusedInclusion(leaves[index], index, size, root, _longer(proof));
        _refusedInclusion(leaves[index], index, size, root, _shorter(proof));
        _refusedInclusion(leaves[index], index, size, root, _flipped(proof, c));
    }

    function testFuzz_ConsistencyHoldsForThisTreeOnly(uint256 a, uint256 b, uint256 c) external view {
        uint64 size = uint64(bound(a, 2, DRAWN_SIZE_TO));
        uint64 old = uint64(bound(b, 1, size - 1));
        bytes32[] memory leaves = _leaves(size);
        bytes32 oldRoot = ReferenceTree.root(leaves, old);
        bytes32 newRoot = ReferenceTree.root(leaves, size);
        bytes32[] memory proof = ReferenceTree.consistency(leaves, old, size);
        HARNESS.consistency(old, oldRoot, size, newRoot, proof);
        leaves[bound(c, 0, old - 1)] ^= bytes32(uint256(1)); // a rewritten history has another old root
        _refusedConsistency(old, ReferenceTree.root(leaves, old), size, newRoot, proof);
        _refusedConsistency(old, oldRoot, size, ReferenceTree.root(leaves, size), proof);
        proof = ReferenceTree.consistency(leaves, old, size);
        _refusedConsistency(old, oldRoot, size, ReferenceTree.root(leaves, size), proof);
    }

    function testFuzz_ConsistencyProofsAreConsumedExactly(uint256 a, uint256 b, uint8 c) external view {
        uint64 size = uint64(bound(a, 2, DRAWN_SIZE_TO));
        uint64 old = uint64(bound(b, 1, size - 1));
        bytes32[] memory leaves = _leaves(size);
        bytes32 oldRoot = ReferenceTree.root(leaves, old);
        bytes32 newRoot = ReferenceTree.root(leaves, size);
        bytes32[] memory proof = ReferenceTree.consistency(leaves, old, size);
        _refusedConsistency(old, oldRoot, size, newRoot, _longer(proof));
        _refusedConsistency(old, oldRoot, size, newRoot, _shorter(proof));
        _refusedConsistency(old, oldRoot, size, newRoot, _flipped(proof, c));
    }

    function test_AnIndexMustLieInsideTheTree() external {
        bytes32[] memory none = new bytes32[](0);
        reverts(abi.encodeWithSelector(MerkleLog.IndexBeyondSize.selector, 1, 1));
        HARNESS.inclusion(0, 1, 1, 0, none);
        reverts(abi.encodeWithSelector(MerkleLog.IndexBeyondSize.selector, 0, 0));
        HARNESS.inclusion(0, 0, 0, MerkleLog.EMPTY_ROOT, none);
    }

    function test_ATreeNeverShrinks() external {
        reverts(abi.encodeWithSelector(MerkleLog.TreeShrunk.selector, 2, 1));
        HARNESS.consistency(2, 0, 1, 0, new bytes32[](0));
    }

    function test_FromNothingTheOldRootIsTheEmptyOneAndTheProofEmpty() external {
        bytes32 root = keccak256("root");
        reverts(abi.encodeWithSelector(MerkleLog.RootMismatch.selector, root, MerkleLog.EMPTY_ROOT));
        HARNESS.consistency(0, root, 1, root, new bytes32[](0));
        reverts(abi.encodeWithSelector(MerkleLog.WrongProofLength.selector, 1));
        HARNESS.consistency(0, MerkleLog.EMPTY_ROOT, 1, root, new bytes32[](1));
    }

    function test_ToTheSameSizeTheRootsAreEqualAndTheProofEmpty() external {
        bytes32 root = keccak256("root");
        reverts(abi.encodeWithSelector(MerkleLog.RootMismatch.selector, bytes32(uint256(1)), root));
        HARNESS.consistency(5, root, 5, bytes32(uint256(1)), new bytes32[](0));
        reverts(abi.encodeWithSelector(MerkleLog.WrongProofLength.selector, 1));
        HARNESS.consistency(5, root, 5, root, new bytes32[](1));
    }

    function test_AMissingFirstHashIsToldByItsLength() external {
        reverts(abi.encodeWithSelector(MerkleLog.WrongProofLength.selector, 0));
        HARNESS.consistency(3, 0, 4, 0, new bytes32[](0));
    }

    function _refusedInclusion(
        bytes32 leaf,
        uint64 index,
        uint64 size,
        bytes32 root,
        bytes32[] memory proof
    ) private view {
        try HARNESS.inclusion(leaf, index, size, root, proof) {
            check(false);
        } catch {}
    }

    function _refusedConsistency(
        uint64 oldSize,
        bytes32 oldRoot,
        uint64 newSize,
        bytes32 newRoot,
        bytes32[] memory proof
    ) private view {
        try HARNESS.consistency(oldSize, oldRoot, newSize, newRoot, proof) {
            check(false);
        } catch {}
    }

    function _leaves(uint64 count) private pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](count);
        for (uint64 i = 0; i < count; ++i) {
            leaves[i] = MerkleLog.leafHash(bytes32(uint256(i)));
        }
    }

    function _longer(bytes32[] memory proof) private pure returns (bytes32[] memory copy) {
        copy = new bytes32[](proof.length + 1);
        for (uint256 i = 0; i < proof.length; ++i) {
            copy[i] = proof[i];
        }
        copy[proof.length] = keccak256("one more");
    }

    function _shorter(bytes32[] memory proof) private pure returns (bytes32[] memory copy) {
        copy = new bytes32[](proof.length - 1);
        for (uint256 i = 0; i < copy.length; ++i) {
            copy[i] = proof[i];
        }
    }

    function _flipped(bytes32[] memory proof, uint8 bit) private pure returns (bytes32[] memory copy) {
        copy = _shorter(_longer(proof));
        copy[bit % proof.length] ^= bytes32(uint256(1) << bit);
    }
}
