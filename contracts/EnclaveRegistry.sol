// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAttestationVerifier} from "./interfaces/IAttestationVerifier.sol";
import {IEnclaveRegistry} from "./interfaces/IEnclaveRegistry.sol";
import {IReceiptLog} from "./interfaces/IReceiptLog.sol";
import {Verdict} from "./libraries/TypedData.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";

/// @title EnclaveRegistry
/// @dev Storage layout:
///   0  authority      AccessManager (AccessManaged); pair count behind it
///   1  verifier       in force, or replaced by slot 2 once its time has come
///   2  next verifier  and the second from which it is in force
///   3  epochs         log id, number → four slots of Epoch
///   4  pairs          index → three slots of Pair
///   5  active         log id → one slot, all that a batch needs
///   6  pair indices   keccak256(measurement ‖ parameters digest) → index
///   7  used keys      log id, key → whether it was active
contract EnclaveRegistry is IEnclaveRegistry, AccessManaged {
    /// @dev One slot. `key` is zero when the epoch was revoked; `epoch` counts on.
    struct Active {
        address key;
        uint40 expiresAt;
        uint40 epoch;
        uint16 pair;
    }

    uint256 private constant OPCODE_BLOCKS = 256;
    /// @dev Life of a Nitro document's leaf certificate, and what clocks may differ by: the bounds by which
    /// everybody judges a document later, against the block of its activation.
    uint256 private constant MAX_DOCUMENT_AGE_MS = 3 hours * 1000;
    uint256 private constant MAX_DOCUMENT_LEAD_MS = 2 minutes * 1000;
    /// @dev EIP-2935.
    address private constant BLOCK_HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    /// @inheritdoc IEnclaveRegistry
    bytes32 public immutable domainSeparator;
    /// @inheritdoc IEnclaveRegistry
    IReceiptLog public immutable receiptLog;
    /// @inheritdoc IEnclaveRegistry
    uint32 public immutable delay;
    /// @inheritdoc IEnclaveRegistry
    uint32 public immutable epochLifetime;
    bytes32 private immutable DEBUG_MEASUREMENT;

    uint16 private _pairCount;
    IAttestationVerifier private _verifier;
    IAttestationVerifier private _nextVerifier;
    uint40 private _nextVerifierFrom;
    mapping(bytes32 logId => mapping(uint64 epoch => Epoch)) private _epochs;
    mapping(uint16 pair => Pair) private _pairs;
    mapping(bytes32 logId => Active) private _active;
    mapping(bytes32 pairHash => uint16 pair) private _pairIndices;
    mapping(bytes32 logId => mapping(address key => bool)) private _usedKeys;

    /// @param authority AccessManager that knows administrators and guardian.
    /// @param receiptLog_ Knows the operators of logs and hands over the domain separator.
    /// @param verifier_ First verifier, in force at once.
    /// @param delay_ Seconds from a proposal to its effect.
    /// @param epochLifetime_ Seconds from an epoch's activation to its expiry.
    constructor(
        address authority,
        IReceiptLog receiptLog_,
        IAttestationVerifier verifier_,
        uint32 delay_,
        uint32 epochLifetime_
    ) AccessManaged(authority) {
        _checkVerifier(verifier_, delay_);
        if (epochLifetime_ == 0) revert ZeroLifetime();
        receiptLog = receiptLog_;
        domainSeparator = receiptLog_.domainSeparator();
        delay = delay_;
        epochLifetime = epochLifetime_;
        DEBUG_MEASUREMENT = sha256(bytes.concat(bytes16("pnv1:pcr"), new bytes(3 * 48)));
        _verifier = verifier_;
        emit VerifierProposed(verifier_, uint40(block.timestamp));
    }

    /// @inheritdoc IEnclaveRegistry
    function proposePair(
        bytes32 measurement,
        bytes32 parametersDigest
    ) external restricted returns (uint16 pair) {
        if (measurement == DEBUG_MEASUREMENT) revert DebugMeasurement();
        bytes32 pairHash = _pairHash(measurement, parametersDigest);
        uint16 present = _pairIndices[pairHash];
        if (present != 0 && _pairs[present].revokedAt == 0) revert PairAlreadyProposed(present);
        pair = ++_pairCount;
        uint40 allowedFrom = uint40(block.timestamp) + delay;
        _pairIndices[pairHash] = pair;
        _pairs[pair] = Pair(measurement, parametersDigest, allowedFrom, 0);
        emit PairProposed(pair, measurement, parametersDigest, allowedFrom);
    }

    /// @inheritdoc IEnclaveRegistry
    function revokePair(uint16 pair) external restricted {
        Pair storage entry = _pairs[pair];
        if (entry.allowedFrom == 0) revert UnknownPairIndex(pair);
        if (entry.revokedAt != 0) revert PairIsRevoked(pair);
        entry.revokedAt = uint40(block.timestamp);
        emit PairRevoked(pair);
    }

    /// @inheritdoc IEnclaveRegistry
    function proposeVerifier(IAttestationVerifier verifier_) external restricted {
        _checkVerifier(verifier_, delay);
        _verifier = verifier();
        uint40 effectiveAt = uint40(block.timestamp) + delay;
        (_nextVerifier, _nextVerifierFrom) = (verifier_, effectiveAt);
        emit VerifierProposed(verifier_, effectiveAt);
    }

    /// @inheritdoc IEnclaveRegistry
    function activate(Verdict calldata verdict, bytes calldata evidence) external returns (uint64 epoch) {
        bytes32 logId = verdict.logId;
        _checkOperator(logId);
        _checkFresh(verdict);
        uint16 pair = _allowedPair(verdict.measurement, verdict.parametersDigest);
        if (verdict.key == address(0)) revert ZeroKey();
        if (_usedKeys[logId][verdict.key]) revert KeyAlreadyUsed(logId, verdict.key);

        _usedKeys[logId][verdict.key] = true;
        epoch = _start(verdict, pair);
        verifier().check(verdict, evidence);
    }

    /// @inheritdoc IEnclaveRegistry
    function revokeEpoch(bytes32 logId, uint64 epoch) external restricted {
        _revoke(logId, epoch);
        emit EpochRevoked(logId, epoch, false);
    }

    /// @inheritdoc IEnclaveRegistry
    function revokeOwnEpoch(bytes32 logId, uint64 epoch) external {
        _checkOperator(logId);
        _revoke(logId, epoch);
        emit EpochRevoked(logId, epoch, true);
    }

    /// @inheritdoc IEnclaveRegistry
    function activeEpochOf(bytes32 logId) external view returns (address key, uint64 epoch) {
        Active storage active = _active[logId];
        (key, epoch) = (active.key, active.epoch);
        uint16 pair = active.pair;
        if (key == address(0)) revert NoActiveEpoch(logId);
        if (block.timestamp >= active.expiresAt) revert EpochExpired(logId, epoch, active.expiresAt);
        if (_pairs[pair].revokedAt != 0) revert PairIsRevoked(pair);
    }

    /// @inheritdoc IEnclaveRegistry
    function epochCountOf(bytes32 logId) external view returns (uint64) {
        return _active[logId].epoch;
    }

    /// @inheritdoc IEnclaveRegistry
    function epochOf(bytes32 logId, uint64 epoch) external view returns (Epoch memory) {
        return _epoch(logId, epoch);
    }

    /// @inheritdoc IEnclaveRegistry
    function pairOf(uint16 pair) external view returns (Pair memory) {
        return _pairs[pair];
    }

    /// @inheritdoc IEnclaveRegistry
    function pairIndexOf(bytes32 measurement, bytes32 parametersDigest) external view returns (uint16) {
        return _pairIndices[_pairHash(measurement, parametersDigest)];
    }

    /// @inheritdoc IEnclaveRegistry
    function pendingVerifier() external view returns (IAttestationVerifier, uint40 effectiveAt) {
        if (_nextVerifierMatured()) return (IAttestationVerifier(address(0)), 0);
        return (_nextVerifier, _nextVerifierFrom);
    }

    /// @inheritdoc IEnclaveRegistry
    function verifier() public view returns (IAttestationVerifier) {
        return _nextVerifierMatured() ? _nextVerifier : _verifier;
    }

    /// @dev Records the next epoch of `verdict.logId` and makes it the active one.
    function _start(Verdict calldata verdict, uint16 pair) private returns (uint64 epoch) {
        bytes32 logId = verdict.logId;
        uint40 number = _active[logId].epoch + 1;
        uint40 expiresAt = uint40(block.timestamp) + epochLifetime;
        _active[logId] = Active(verdict.key, expiresAt, number, pair);
        _epochs[logId][number] = Epoch({
            key: verdict.key,
            activatedAt: uint40(block.timestamp),
            expiresAt: expiresAt,
            pair: pair,
            revokedAt: 0,
            blockNumber: verdict.blockNumber,
            documentMs: verdict.documentMs,
            manifestDigest: verdict.manifestDigest,
            payloadDigest: verdict.payloadDigest
        });
        emit EpochActivated(
            logId,
            number,
            verdict.key,
            pair,
            verdict.manifestDigest,
            verdict.payloadDigest,
            verdict.blockNumber,
            verdict.documentMs,
            expiresAt
        );
        return number;
    }

    function _revoke(bytes32 logId, uint64 epoch) private {
        Epoch storage entry = _epoch(logId, epoch);
        if (entry.revokedAt != 0) revert EpochAlreadyRevoked(logId, epoch);
        entry.revokedAt = uint40(block.timestamp);
        if (_active[logId].epoch == epoch) _active[logId].key = address(0);
    }

    function _epoch(bytes32 logId, uint64 epoch) private view returns (Epoch storage entry) {
        entry = _epochs[logId][epoch];
        if (entry.activatedAt == 0) revert UnknownEpoch(logId, epoch);
    }

    function _checkOperator(bytes32 logId) private view {
        if (receiptLog.operatorOf(logId) != msg.sender) revert NotOperator(logId, msg.sender);
    }

    function _checkVerifier(IAttestationVerifier verifier_, uint32 least) private view {
        if (address(verifier_) == address(0)) revert ZeroVerifier();
        uint32 changeDelay = verifier_.changeDelay();
        if (changeDelay < least) revert VerifierChangesTooFast(verifier_, changeDelay, least);
    }

    /// @dev The verdict has not expired; the document's time fits this block's, and it was made after a
    /// block of this chain, since it carries that block's hash.
    function _checkFresh(Verdict calldata verdict) private view {
        uint256 nowMs = block.timestamp * 1000;
        if (nowMs >= verdict.expiresMs) revert VerdictExpired(verdict.expiresMs, nowMs);
        uint256 documentMs = verdict.documentMs;
        if (documentMs > nowMs + MAX_DOCUMENT_LEAD_MS || nowMs > documentMs + MAX_DOCUMENT_AGE_MS) {
            revert DocumentOutOfTime(verdict.documentMs, nowMs);
        }
        bytes32 actual = _blockHash(verdict.blockNumber);
        if (actual == 0 || actual != verdict.blockHash) {
            revert BlockHashMismatch(verdict.blockNumber, verdict.blockHash, actual);
        }
    }

    /// @dev Hash of a past block, or zero where the chain no longer knows it: the last 256 by opcode, some
    /// thousands more where EIP-2935 is deployed. A reverting history contract's data is no hash.
    function _blockHash(uint256 number) private view returns (bytes32) {
        if (number >= block.number) return 0;
        if (block.number - number <= OPCODE_BLOCKS) return blockhash(number);
        (bool success, bytes memory result) = BLOCK_HISTORY.staticcall(abi.encode(number));
        return success && result.length == 32 ? bytes32(result) : bytes32(0);
    }

    function _allowedPair(bytes32 measurement, bytes32 parametersDigest) private view returns (uint16 pair) {
        pair = _pairIndices[_pairHash(measurement, parametersDigest)];
        if (pair == 0) revert UnknownPair(measurement, parametersDigest);
        Pair storage entry = _pairs[pair];
        if (entry.revokedAt != 0) revert PairIsRevoked(pair);
        if (block.timestamp < entry.allowedFrom) revert PairNotAllowedYet(pair, entry.allowedFrom);
    }

    function _nextVerifierMatured() private view returns (bool) {
        return _nextVerifierFrom != 0 && block.timestamp >= _nextVerifierFrom;
    }

    function _pairHash(bytes32 measurement, bytes32 parametersDigest) private pure returns (bytes32) {
        return keccak256(bytes.concat(measurement, parametersDigest));
    }
}
