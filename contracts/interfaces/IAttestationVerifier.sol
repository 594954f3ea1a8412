// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Verdict} from "../libraries/TypedData.sol";

/// @title Answers for attestation documents
/// @notice Behind it stands whatever convinces this deployment: signatures of a quorum over the verdict,
/// or the document itself checked on chain.
interface IAttestationVerifier {
    /// @notice Reverts unless `evidence` proves every field of `verdict`, `expiresMs` apart: that bounds
    /// how long the proof may be used and is the registry's to enforce.
    /// @param verdict What the document is said to contain.
    /// @param evidence What this verifier needs: signatures, or document and manifest.
    function check(Verdict calldata verdict, bytes calldata evidence) external;

    /// @notice Says in words what a passed check means. Starts with `SIMULATED` where it proves nothing.
    function description() external view returns (string memory);
}
