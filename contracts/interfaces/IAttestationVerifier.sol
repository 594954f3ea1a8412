// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Verdict} from "../libraries/TypedData.sol";

/// @title Answers for attestation documents
/// @notice Behind it stands whatever convinces this deployment: signatures of a quorum over the verdict,
/// or document and manifest themselves, checked on chain. {EnclaveRegistry} hands the evidence through
/// unread, so that another kind of it needs another verifier and nothing else.
interface IAttestationVerifier {
    /// @notice Reverts unless `evidence` proves every field of `verdict`, `expiresMs` apart: that bounds
    /// how long the proof may be used and is the registry's to enforce, as are all bounds against the
    /// block's time and hash.
    ///
    /// To prove is to show that a document, signed under the pinned root, not in debug mode, with payload
    /// digest `payloadDigest`, made at `documentMs`, with measurement `measurement`, carries `key` as its
    /// public key, `manifestDigest` as its user data and `blockHash` as its nonce; and that the manifest
    /// with this digest names `logId`, `key`, `parametersDigest`, the block and this deployment. It does
    /// not say that the code is allowed or good.
    /// @param verdict What document and manifest are said to contain.
    /// @param evidence What this verifier needs: signatures, or document and manifest. A verifier
    /// may keep parts of it, such as certificates, to make later checks cheaper.
    function check(Verdict calldata verdict, bytes calldata evidence) external;

    /// @notice Says in words what a passed check means. Starts with `SIMULATED` where it proves nothing.
    function description() external view returns (string memory);

    /// @notice Least seconds from the announcement, by an event, of any change that makes {check} accept
    /// more than before, to its effect; `type(uint32).max` where no such change exists. What makes it
    /// accept less may come at once.
    function changeDelay() external view returns (uint32);
}
