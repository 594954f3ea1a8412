// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAttestationVerifier} from "./interfaces/IAttestationVerifier.sol";
import {IQuorumAttestationVerifier} from "./interfaces/IQuorumAttestationVerifier.sol";
import {TypedData, Verdict} from "./libraries/TypedData.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";

/// @title QuorumAttestationVerifier
/// @dev Storage layout:
///   0  authority   AccessManager (AccessManaged)
///   1  sets        former, latest, second from which the latest is in force
///   2  members     set → addresses
///   3  thresholds  set → signatures needed
contract QuorumAttestationVerifier is IQuorumAttestationVerifier, AccessManaged {
    using EnumerableSet for EnumerableSet.AddressSet;
    using TypedData for Verdict;

    /// @dev `latest` is in force from `latestFrom` on, `former` before.
    struct Sets {
        uint32 former;
        uint32 latest;
        uint40 latestFrom;
    }

    uint256 private constant LEAST_THRESHOLD = 2;
    uint256 private constant MOST_MEMBERS = 32;
    uint256 private constant SIGNATURE_BYTES = 65;

    /// @inheritdoc IQuorumAttestationVerifier
    bytes32 public immutable domainSeparator;
    /// @inheritdoc IAttestationVerifier
    uint32 public immutable changeDelay;

    Sets private _sets;
    mapping(uint32 set => EnumerableSet.AddressSet) private _members;
    mapping(uint32 set => uint8) private _thresholds;

    /// @param authority AccessManager that knows administrators and guardian.
    /// @param settlement Future address of Settlement.
    /// @param members Members of the first set, in force at once.
    /// @param threshold How many of them must sign.
    /// @param changeDelay_ Seconds from the proposal of a later set to its effect.
    constructor(
        address authority,
        address settlement,
        address[] memory members,
        uint8 threshold,
        uint32 changeDelay_
    ) AccessManaged(authority) {
        domainSeparator = TypedData.domainSeparator(settlement);
        changeDelay = changeDelay_;
        _addSet(0, members, threshold, uint40(block.timestamp));
    }

    /// @inheritdoc IQuorumAttestationVerifier
    function proposeSet(
        address[] calldata members,
        uint8 threshold
    ) external restricted returns (uint32 set) {
        (uint32 inForce, ) = _inForceAndWaiting();
        return _addSet(inForce, members, threshold, uint40(block.timestamp) + changeDelay);
    }

    /// @inheritdoc IQuorumAttestationVerifier
    function suspend(address member) external restricted {
        (uint32 inForce, uint32 waiting) = _inForceAndWaiting();
        bool removed = _members[inForce].remove(member);
        bool removedWaiting = _members[waiting].remove(member);
        if (!removed && !removedWaiting) revert NotMember(member);
        emit MemberSuspended(member);
    }

    /// @inheritdoc IAttestationVerifier
    /// @param evidence Signatures of exactly `threshold` members over the verdict, 65 bytes each
    /// (`r ‖ s ‖ v`, s in the lower half), by strictly ascending address of the signer.
    function check(Verdict calldata verdict, bytes calldata evidence) external view {
        (uint32 inForce, ) = _inForceAndWaiting();
        uint256 length = _thresholds[inForce] * SIGNATURE_BYTES;
        if (evidence.length != length) revert WrongEvidenceLength(length, evidence.length);
        bytes32 digest = TypedData.digest(domainSeparator, verdict.hash());
        address previous = address(0);
        for (uint256 offset = 0; offset < length; offset += SIGNATURE_BYTES) {
            address signer = ECDSA.recoverCalldata(digest, evidence[offset:offset + SIGNATURE_BYTES]);
            if (signer <= previous) revert NotAscending(previous, signer);
            if (!_members[inForce].contains(signer)) revert NotMember(signer);
            previous = signer;
        }
    }

    /// @inheritdoc IQuorumAttestationVerifier
    function setInForce() external view returns (uint32 set, address[] memory members, uint8 threshold) {
        (set, ) = _inForceAndWaiting();
        return (set, _members[set].values(), _thresholds[set]);
    }

    /// @inheritdoc IQuorumAttestationVerifier
    function pendingSet()
        external
        view
        returns (uint32 set, address[] memory members, uint8 threshold, uint40 effectiveAt)
    {
        (, set) = _inForceAndWaiting();
        effectiveAt = set == 0 ? 0 : _sets.latestFrom;
        return (set, _members[set].values(), _thresholds[set], effectiveAt);
    }

    /// @inheritdoc IQuorumAttestationVerifier
    function isMember(address account) external view returns (bool) {
        (uint32 inForce, ) = _inForceAndWaiting();
        return _members[inForce].contains(account);
    }

    /// @inheritdoc IAttestationVerifier
    function description() external view returns (string memory) {
        (uint32 inForce, ) = _inForceAndWaiting();
        return
            string.concat(
                Strings.toString(_thresholds[inForce]),
                " of ",
                Strings.toString(_members[inForce].length()),
                " named verifiers signed that they checked the attestation document off chain"
            );
    }

    function _addSet(
        uint32 inForce,
        address[] memory members,
        uint8 threshold,
        uint40 effectiveAt
    ) private returns (uint32 set) {
        uint256 count = members.length;
        if (count > MOST_MEMBERS) revert TooManyMembers(count, MOST_MEMBERS);
        if (threshold < LEAST_THRESHOLD || threshold > count) {
            revert ThresholdOutOfRange(threshold, LEAST_THRESHOLD, count);
        }
        set = _sets.latest + 1;
        _sets = Sets(inForce, set, effectiveAt);
        _thresholds[set] = threshold;
        address previous = address(0);
        for (uint256 i = 0; i < count; ++i) {
            if (members[i] <= previous) revert NotAscending(previous, members[i]);
            previous = members[i];
            _members[set].add(previous);
        }
        emit SetProposed(set, members, threshold, effectiveAt);
    }

    /// @dev Numbers of the two sets that matter; 0, which has no members, where none waits.
    function _inForceAndWaiting() private view returns (uint32 inForce, uint32 waiting) {
        Sets memory sets = _sets;
        return block.timestamp < sets.latestFrom ? (sets.former, sets.latest) : (sets.latest, 0);
    }
}
