// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Verdict} from "../libraries/TypedData.sol";
import {IAttestationVerifier} from "./IAttestationVerifier.sol";
import {IReceiptLog} from "./IReceiptLog.sol";

/// @title Which code may run logs, and with which keys
/// @notice Code is a pair (measurement, parameters digest), allowed by an administrator after a public
/// delay. An epoch of a log is one boot of allowed code: a key that an attestation verifier vouches for,
/// activated by the log's operator. Activating an epoch ends the one before.
interface IEnclaveRegistry {
    /// @notice An allowed, waiting or revoked pair.
    /// @param allowedFrom Second from which epochs may be activated with it.
    /// @param revokedAt Second of its revocation; 0: not revoked.
    struct Pair {
        bytes32 measurement;
        bytes32 parametersDigest;
        uint40 allowedFrom;
        uint40 revokedAt;
    }

    /// @notice One boot of a log. Ended by the next epoch's `activatedAt`, `expiresAt` or `revokedAt`,
    /// whichever comes first.
    /// @param key Address of the enclave's signing key.
    /// @param blockNumber Block whose hash the document carries: it was made after that block.
    /// @param payloadDigest SHA-256 of the document's COSE payload.
    struct Epoch {
        address key;
        uint40 activatedAt;
        uint40 expiresAt;
        uint16 pair;
        uint40 revokedAt;
        uint64 blockNumber;
        uint64 documentMs;
        bytes32 manifestDigest;
        bytes32 payloadDigest;
    }

    /// @notice Epochs may be activated with this pair from `allowedFrom` on.
    event PairProposed(
        uint16 indexed pair,
        bytes32 indexed measurement,
        bytes32 indexed parametersDigest,
        uint40 allowedFrom
    );
    /// @notice Nothing signed by an epoch of this pair is accepted on chain any more.
    event PairRevoked(uint16 indexed pair);
    /// @notice Activations from `effectiveAt` on are checked by `verifier`, unless another is proposed before.
    event VerifierProposed(IAttestationVerifier indexed verifier, uint40 effectiveAt);
    event EpochActivated(
        bytes32 indexed logId,
        uint64 indexed epoch,
        address indexed key,
        uint16 pair,
        bytes32 manifestDigest,
        bytes32 payloadDigest,
        uint64 blockNumber,
        uint64 documentMs,
        uint40 expiresAt
    );
    /// @notice The epoch's key was withdrawn, `byOperator` or by the guardian.
    event EpochRevoked(bytes32 indexed logId, uint64 indexed epoch, bool byOperator);

    error NotOperator(bytes32 logId, address caller);
    /// @notice The measurement is that of an enclave in debug mode, all registers zero.
    error DebugMeasurement();
    error PairAlreadyProposed(uint16 pair);
    error UnknownPair(bytes32 measurement, bytes32 parametersDigest);
    error UnknownPairIndex(uint16 pair);
    error PairNotAllowedYet(uint16 pair, uint256 allowedFrom);
    error PairIsRevoked(uint16 pair);
    error VerdictExpired(uint64 expiresMs, uint256 nowMs);
    /// @notice The document is more than 3 hours older than the block or more than 2 minutes younger.
    error DocumentOutOfTime(uint64 documentMs, uint256 nowMs);
    /// @notice The document's nonce is not the hash of that block, or the block is too old to tell.
    error BlockHashMismatch(uint64 blockNumber, bytes32 given, bytes32 actual);
    /// @notice The key was active in this log before; every boot must make a new one.
    error KeyAlreadyUsed(bytes32 logId, address key);
    error ZeroKey();
    error NoActiveEpoch(bytes32 logId);
    error EpochExpired(bytes32 logId, uint64 epoch, uint256 expiresAt);
    error UnknownEpoch(bytes32 logId, uint64 epoch);
    error EpochAlreadyRevoked(bytes32 logId, uint64 epoch);
    error ZeroVerifier();
    /// @notice Epochs would expire as they begin.
    error ZeroLifetime();
    /// @notice What `verifier` accepts could change in `changeDelay` seconds, before payers can leave.
    error VerifierChangesTooFast(IAttestationVerifier verifier, uint32 changeDelay, uint32 least);

    /// @notice Proposes a pair; it is allowed once the delay is over. A revoked pair may be proposed
    /// again and gets a new index. By an administrator. Only the measurement of an enclave with all of
    /// PCR0–2 zero is refused here; that none of them is zero is for the verifier to see.
    function proposePair(bytes32 measurement, bytes32 parametersDigest) external returns (uint16 pair);

    /// @notice Revokes a pair, waiting or allowed, at once and for good. By the guardian.
    function revokePair(uint16 pair) external;

    /// @notice Proposes another verifier for later activations, in force after the delay; a new
    /// proposal replaces a waiting one. By an administrator. The verifier's word for its `changeDelay`
    /// is taken: its code is public for as long as it waits.
    function proposeVerifier(IAttestationVerifier verifier) external;

    /// @notice Starts the next epoch of `verdict.logId`, by the log's operator.
    ///
    /// Why this key may sign for this log: the verifier in force states, in one verdict, that a document
    /// carries `key` and `manifestDigest`, and that the manifest with this digest names `logId`, the same
    /// key, `parametersDigest` and this deployment. Neither document nor manifest comes here; the record
    /// keeps both digests, so that anybody who has them (the log publishes both) can repeat the check.
    /// The operator adds its consent, without which a boot of allowed code could end a log's epoch.
    ///
    /// When: the verdict ends at `expiresMs`, which is the verifier's own choice and has no upper bound
    /// here, because the document does: it was made at most 3 hours before this block (a leaf certificate's
    /// life, and what every later check of the document demands again) and after block `blockNumber`,
    /// which the chain must still remember. A key is activated once per log, so a verdict works once.
    ///
    /// Not proven: that the measured code does what its source says, nor, under a quorum, that there is
    /// a document at all; see {IAttestationVerifier.description}.
    /// @param verdict What the attestation document contains.
    /// @param evidence What the verifier in force needs to be convinced of it.
    function activate(Verdict calldata verdict, bytes calldata evidence) external returns (uint64 epoch);

    /// @notice Revokes an epoch of any log at once and for good. By the guardian.
    function revokeEpoch(bytes32 logId, uint64 epoch) external;

    /// @notice Revokes an epoch of the caller's own log at once and for good.
    function revokeOwnEpoch(bytes32 logId, uint64 epoch) external;

    /// @notice Key and number of the epoch that may sign for `logId` now; reverts if there is none.
    function activeEpochOf(bytes32 logId) external view returns (address key, uint64 epoch);

    /// @notice Number of epochs that `logId` has had; they count from 1.
    function epochCountOf(bytes32 logId) external view returns (uint64);

    /// @notice Record of an epoch; reverts if there is none.
    function epochOf(bytes32 logId, uint64 epoch) external view returns (Epoch memory);

    /// @notice Record of a pair; all zero if there is none. Indices count from 1.
    function pairOf(uint16 pair) external view returns (Pair memory);

    /// @notice Latest index given to (measurement, parametersDigest); 0: never proposed.
    function pairIndexOf(bytes32 measurement, bytes32 parametersDigest) external view returns (uint16);

    /// @notice The verifier in force now.
    function verifier() external view returns (IAttestationVerifier);

    /// @notice The verifier that waits, and from when it is in force; zeros if none waits.
    function pendingVerifier() external view returns (IAttestationVerifier verifier, uint40 effectiveAt);

    /// @notice Seconds from a proposal to its effect.
    function delay() external view returns (uint32);

    /// @notice Seconds from an epoch's activation to its expiry.
    function epochLifetime() external view returns (uint32);

    function domainSeparator() external view returns (bytes32);
    function receiptLog() external view returns (IReceiptLog);
}
