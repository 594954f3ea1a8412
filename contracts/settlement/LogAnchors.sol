// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogAnchors} from "../interfaces/ILogAnchors.sol";
import {MerkleLog} from "../libraries/MerkleLog.sol";
import {Batch} from "../libraries/TypedData.sol";

/// @title The part of the receipt log that every batch touches
/// @notice Lets a log grow only by trees that extend the last anchored one.
abstract contract LogAnchors is ILogAnchors {
    /// @dev Slot 0 of Settlement: log id, sequence → keccak256(abi.encode(Anchor)).
    mapping(bytes32 logId => mapping(uint64 sequence => bytes32 anchor)) private _anchors;

    /// @inheritdoc ILogAnchors
    function anchorOf(bytes32 logId, uint64 sequence) public view returns (bytes32) {
        return _anchors[logId][sequence];
    }

    /// @dev Reverts unless `batch` is the one after batch `lastSequence` and its tree extends that one's.
    function _checkContinues(
        Batch calldata batch,
        uint64 lastSequence,
        bytes32[] calldata consistencyProof,
        LastAnchor calldata last
    ) internal view {
        if (batch.sequence != lastSequence + 1) {
            revert WrongSequence(batch.logId, lastSequence + 1, batch.sequence);
        }
        if (batch.newSize <= batch.prevSize) revert EmptyRange(batch.prevSize, batch.newSize);
        if (lastSequence == 0) {
            if (batch.prevSize != 0) revert AnchorMismatch(0, bytes32(uint256(batch.prevSize)));
        } else {
            bytes32 anchor = _anchors[batch.logId][lastSequence];
            bytes32 given = _anchor(
                batch.logId,
                lastSequence,
                last.prevSize,
                batch.prevSize,
                batch.prevRoot,
                last.batchDigest
            );
            if (given != anchor) revert AnchorMismatch(anchor, given);
        }
        MerkleLog.checkConsistency(
            batch.prevSize,
            batch.prevRoot,
            batch.newSize,
            batch.newRoot,
            consistencyProof
        );
    }

    function _setAnchor(Batch calldata batch, bytes32 batchDigest) internal {
        _anchors[batch.logId][batch.sequence] = _anchor(
            batch.logId,
            batch.sequence,
            batch.prevSize,
            batch.newSize,
            batch.newRoot,
            batchDigest
        );
    }

    function _anchor(
        bytes32 logId,
        uint64 sequence,
        uint64 prevSize,
        uint64 newSize,
        bytes32 newRoot,
        bytes32 batchDigest
    ) private pure returns (bytes32) {
        return keccak256(abi.encode(logId, sequence, prevSize, newSize, newRoot, batchDigest));
    }
}
