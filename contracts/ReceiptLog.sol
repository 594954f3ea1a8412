// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogAnchors} from "./interfaces/ILogAnchors.sol";
import {IReceiptLog} from "./interfaces/IReceiptLog.sol";
import {Endpoints} from "./libraries/Endpoints.sol";
import {MerkleLog} from "./libraries/MerkleLog.sol";
import {Receipt, TypedData} from "./libraries/TypedData.sol";

/// @title ReceiptLog
/// @dev Storage layout:
///   0  logs        log id → operator; endpoints
///   1  log counts  operator → number of logs opened
///   2  log ids     every log, in order of opening
contract ReceiptLog is IReceiptLog {
    using TypedData for Receipt;

    struct Log {
        address operator;
        string[] endpoints;
    }

    /// @inheritdoc IReceiptLog
    bytes32 public immutable domainSeparator;
    /// @inheritdoc IReceiptLog
    ILogAnchors public immutable settlement;

    mapping(bytes32 logId => Log) private _logs;
    mapping(address operator => uint64) private _logCounts;
    bytes32[] private _logIds;

    /// @param settlement_ Future address of Settlement, which compares at its own construction.
    constructor(ILogAnchors settlement_) {
        settlement = settlement_;
        domainSeparator = TypedData.domainSeparator(address(settlement_));
    }

    /// @inheritdoc IReceiptLog
    function openLog(string[] calldata endpoints) external returns (bytes32 logId) {
        Endpoints.check(endpoints);
        uint64 number = _logCounts[msg.sender]++;
        logId = logIdOf(msg.sender, number);
        _logs[logId] = Log(msg.sender, endpoints);
        _logIds.push(logId);
        emit LogOpened(logId, msg.sender, number);
        emit EndpointsSet(logId, endpoints);
    }

    /// @inheritdoc IReceiptLog
    function setEndpoints(bytes32 logId, string[] calldata endpoints) external {
        Log storage log = _logs[logId];
        if (log.operator != msg.sender) revert NotOperator(logId, msg.sender);
        Endpoints.check(endpoints);
        log.endpoints = endpoints;
        emit EndpointsSet(logId, endpoints);
    }

    /// @inheritdoc IReceiptLog
    function settledIn(
        Receipt calldata receipt,
        uint64 index,
        bytes32[] calldata inclusionProof,
        ILogAnchors.Anchor calldata anchor
    ) external view returns (uint64 sequence) {
        if (receipt.head.logId != anchor.logId) revert WrongLog(anchor.logId, receipt.head.logId);
        if (settlement.anchorOf(anchor.logId, anchor.sequence) != keccak256(abi.encode(anchor))) {
            revert UnknownAnchor(anchor.logId, anchor.sequence);
        }
        if (index < anchor.prevSize || index >= anchor.newSize) {
            revert IndexOutsideBatch(index, anchor.prevSize, anchor.newSize);
        }
        bytes32 leaf = MerkleLog.leafHash(TypedData.digest(domainSeparator, receipt.hash()));
        MerkleLog.checkInclusion(leaf, index, anchor.newSize, anchor.newRoot, inclusionProof);
        return anchor.sequence;
    }

    /// @inheritdoc IReceiptLog
    function checkInclusion(
        bytes32 leaf,
        uint64 index,
        uint64 size,
        bytes32 root,
        bytes32[] calldata proof
    ) external view {
        MerkleLog.checkInclusion(leaf, index, size, root, proof);
    }

    /// @inheritdoc IReceiptLog
    function checkConsistency(
        uint64 oldSize,
        bytes32 oldRoot,
        uint64 newSize,
        bytes32 newRoot,
        bytes32[] calldata proof
    ) external view {
        MerkleLog.checkConsistency(oldSize, oldRoot, newSize, newRoot, proof);
    }

    /// @inheritdoc IReceiptLog
    function operatorOf(bytes32 logId) external view returns (address) {
        return _logs[logId].operator;
    }

    /// @inheritdoc IReceiptLog
    function logCountOf(address operator) external view returns (uint64) {
        return _logCounts[operator];
    }

    /// @inheritdoc IReceiptLog
    function endpointsOf(bytes32 logId) external view returns (string[] memory) {
        return _logs[logId].endpoints;
    }

    /// @inheritdoc IReceiptLog
    function logCount() external view returns (uint256) {
        return _logIds.length;
    }

    /// @inheritdoc IReceiptLog
    function logAt(uint256 position) external view returns (bytes32) {
        return _logIds[position];
    }

    /// @inheritdoc IReceiptLog
    function logIdOf(address operator, uint64 number) public view returns (bytes32) {
        return TypedData.digest(domainSeparator, TypedData.hashLog(operator, number));
    }
}
