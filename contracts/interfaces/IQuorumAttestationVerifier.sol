// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAttestationVerifier} from "./IAttestationVerifier.sol";

/// @title k of n named verifiers
/// @notice Each member checks the attestation document off chain, by the same published rules, and signs
/// the EIP-712 `Verdict`. What a quorum signed is believed, not proven: k members together can vouch for
/// a key that no enclave holds. Who they are, and the digest of every document that they vouched for, is
/// public, so that anybody can repeat the check and leave.
///
/// Members and threshold are one set, proposed whole and in force after {changeDelay}. Only one change
/// is immediate: the guardian may suspend a member. The threshold stays, so as many signatures as before
/// are needed, from fewer keys; suspending never helps to activate anything. It can stop activations
/// until another set is in force, which the guardian can do anyway by revoking the allowed code.
interface IQuorumAttestationVerifier is IAttestationVerifier {
    /// @notice Set number `set` is in force from `effectiveAt` on, unless another is proposed before.
    /// Sets count from 1; a set that was replaced while it waited never comes into force.
    event SetProposed(uint32 indexed set, address[] members, uint8 threshold, uint40 effectiveAt);
    /// @notice The member left the set in force and the waiting one, whichever held it; thresholds stay.
    event MemberSuspended(address indexed member);

    /// @notice Members of a proposal, or signers of evidence, must ascend strictly from zero.
    error NotAscending(address previous, address given);
    error TooManyMembers(uint256 given, uint256 most);
    /// @notice A quorum of one is none, and a threshold above the number of members is never reached.
    error ThresholdOutOfRange(uint256 given, uint256 least, uint256 most);
    /// @notice Evidence is exactly as many signatures of 65 bytes as the threshold.
    error WrongEvidenceLength(uint256 expected, uint256 given);
    /// @notice The account is not in the set in force; for a suspension, nor in the waiting one.
    error NotMember(address account);

    /// @notice Proposes the whole set that replaces the one in force after the delay, and replaces the
    /// waiting one at once. Suspended members may be proposed again. By an administrator.
    /// @param members Signing addresses, strictly ascending, at most 32.
    /// @param threshold How many of them must sign a verdict, from 2 to their number.
    function proposeSet(address[] calldata members, uint8 threshold) external returns (uint32 set);

    /// @notice Takes a member out of the set in force and the waiting one at once. By the guardian.
    function suspend(address member) external;

    /// @notice The set in force: its number, who may sign now (in no order), and how many must.
    function setInForce() external view returns (uint32 set, address[] memory members, uint8 threshold);

    /// @notice The set that waits, and from when it is in force; zeros and nobody if none waits.
    function pendingSet()
        external
        view
        returns (uint32 set, address[] memory members, uint8 threshold, uint40 effectiveAt);

    /// @notice Whether `account`'s signature counts now.
    function isMember(address account) external view returns (bool);

    /// @notice EIP-712 separator of the deployment: a verdict signed for another is not accepted.
    function domainSeparator() external view returns (bytes32);
}
