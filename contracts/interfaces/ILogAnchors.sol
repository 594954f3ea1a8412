// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Anchored history of logs
/// @notice One storage slot per settled batch, `keccak256(abi.encode(Anchor))`. The next batch hands the
/// preimage in again and proves that its tree extends the anchored one.
/// @dev Slot of an anchor: mapping at slot 0 of Settlement, keyed by log id, then by sequence.
interface ILogAnchors {
    /// @notice Header of a settled batch, the preimage of its anchor.
    struct Anchor {
        bytes32 logId;
        uint64 sequence;
        uint64 prevSize;
        uint64 newSize;
        bytes32 newRoot;
        bytes32 batchDigest;
    }

    /// @notice The words of the last anchor that the new batch does not carry itself: `logId`,
    /// `sequence`, `newSize` and `newRoot` are the batch's own log, predecessor and previous tree.
    /// Zeros for the first batch of a log.
    struct LastAnchor {
        uint64 prevSize;
        bytes32 batchDigest;
    }

    /// @notice The batch is not the next one of its log.
    error WrongSequence(bytes32 logId, uint64 expected, uint64 given);
    /// @notice A batch must settle at least one leaf.
    error EmptyRange(uint64 prevSize, uint64 newSize);
    /// @notice The given words do not hash to the log's last anchor.
    error AnchorMismatch(bytes32 expected, bytes32 given);

    /// @notice Anchor of batch `sequence` of `logId`; zero if there is none.
    function anchorOf(bytes32 logId, uint64 sequence) external view returns (bytes32);
}
