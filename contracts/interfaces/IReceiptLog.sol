// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Receipt} from "../libraries/TypedData.sol";
import {ILogAnchors} from "./ILogAnchors.sol";

/// @title Logs: who operates them, where they are served, what was settled
/// @notice Anyone may open a log and becomes its operator for good. The anchors themselves lie in
/// Settlement; this contract reads them.
///
/// Endpoints are how nodes and gateways find a log's coordinator from the chain: at most 8 of at most 256
/// bytes each, URLs of its public log and multiaddrs of its control streams, the latter without peer id:
/// the peer key is born with each boot and named by the manifest, whose digest the epoch's record holds.
/// The operator's transaction is its signature over the endpoints, and the chain's order says which are
/// the newest. There is no relayed form: an operator sends transactions anyway, to activate its epochs.
///
/// Endpoints are a hint where to look and prove nothing; what is served there must be signed by the log's
/// epoch. Anybody can open logs that nobody serves, so a reader takes those whose operator or money
/// ({ILogFunds.logStateOf}) it has a reason to look at, and goes through the list of all piece by piece.
interface IReceiptLog {
    /// @notice A log was opened. `logId` is the EIP-712 digest of `Log(operator, number)`.
    event LogOpened(bytes32 indexed logId, address indexed operator, uint64 number);
    /// @notice The log is served at `endpoints` (URLs and multiaddrs) from now on, in place of all before.
    event EndpointsSet(bytes32 indexed logId, string[] endpoints);

    error NotOperator(bytes32 logId, address caller);
    /// @notice The words are no anchor that Settlement holds.
    error UnknownAnchor(bytes32 logId, uint64 sequence);
    /// @notice The receipt belongs to another log than the anchor.
    error WrongLog(bytes32 expected, bytes32 given);
    /// @notice The leaf is not among the leaves `[prevSize, newSize)` that the anchor's batch settled.
    error IndexOutsideBatch(uint64 index, uint64 prevSize, uint64 newSize);

    /// @notice Opens the caller's next log.
    function openLog(string[] calldata endpoints) external returns (bytes32 logId);

    /// @notice Replaces the endpoints of `logId`, by its operator. None: not served for now.
    function setEndpoints(bytes32 logId, string[] calldata endpoints) external;

    /// @notice Returns the batch in which `receipt` was settled, or reverts with what does not fit.
    ///
    /// Proves that the receipt's digest is leaf `index` of the tree that this batch anchored and that
    /// this batch settled that leaf. Does not check who signed the receipt: leaves are what the log's
    /// attested epochs wrote, and {IEnclaveRegistry.epochOf} names their keys. A revert says that these
    /// words show no settlement, not that there is none. Nor does it say how much of it was paid: a batch
    /// whose payers were short may have scaled its credits, which Settlement's events tell.
    /// @param index Position of the receipt in the log.
    /// @param inclusionProof RFC 9162 proof of the leaf in the tree of `anchor.newSize` leaves.
    /// @param anchor Words of the batch's anchor.
    /// @return sequence Number of the batch, `anchor.sequence`.
    function settledIn(
        Receipt calldata receipt,
        uint64 index,
        bytes32[] calldata inclusionProof,
        ILogAnchors.Anchor calldata anchor
    ) external view returns (uint64 sequence);

    /// @notice Reverts unless `leaf` is leaf `index` of the tree of `size` leaves with root `root`.
    /// @param leaf RFC 9162 leaf hash.
    function checkInclusion(
        bytes32 leaf,
        uint64 index,
        uint64 size,
        bytes32 root,
        bytes32[] calldata proof
    ) external view;

    /// @notice Reverts unless the tree (`newSize`, `newRoot`) extends the tree (`oldSize`, `oldRoot`).
    function checkConsistency(
        uint64 oldSize,
        bytes32 oldRoot,
        uint64 newSize,
        bytes32 newRoot,
        bytes32[] calldata proof
    ) external view;

    /// @notice Operator of `logId`; zero if no such log was opened.
    function operatorOf(bytes32 logId) external view returns (address);

    /// @notice Number of logs that `operator` has opened, which is the number of its next one.
    function logCountOf(address operator) external view returns (uint64);

    /// @notice Id of log `number` of `operator`, opened or not.
    function logIdOf(address operator, uint64 number) external view returns (bytes32);

    /// @notice Where `logId` is served, as its operator says; any bytes, so parse them before use.
    function endpointsOf(bytes32 logId) external view returns (string[] memory);

    /// @notice Number of logs opened by anybody.
    function logCount() external view returns (uint256);

    /// @notice Log number `position` in order of opening.
    function logAt(uint256 position) external view returns (bytes32);

    /// @notice EIP-712 separator of the deployment.
    function domainSeparator() external view returns (bytes32);

    /// @notice Where the anchors lie.
    function settlement() external view returns (ILogAnchors);
}
