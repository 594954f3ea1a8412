// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {IQuorumAttestationVerifier} from "../../contracts/interfaces/IQuorumAttestationVerifier.sol";
import {TypedData, Verdict} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";

import {IAccessManaged} from "@openzeppelin/contracts/access/manager/IAccessManaged.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @dev Two of three members vouch. The fixture's registry believes them from the start of each test.
contract QuorumAttestationVerifierTest is Network {
    string private constant QUORUM = "contracts/QuorumAttestationVerifier.sol/QuorumAttestationVerifier";
    uint256 private constant NEXT_KEY = 0xe2;
    uint256 private constant NEWCOMER = 0x4e3;
    uint8 private constant THRESHOLD = 2;

    IQuorumAttestationVerifier private quorum;
    uint256[] private keys; // of the members, by ascending address

    function setUp() external {
        deploy();
        keys = _ascending(0x4e0, 0x4e1, 0x4e2);
        quorum = _create(_addresses(keys), THRESHOLD, ADMIN_DELAY);
        bytes4[] memory suspensions = new bytes4[](1);
        suspensions[0] = quorum.suspend.selector;
        vm.startPrank(ADMIN);
        manager.setTargetFunctionRole(address(quorum), suspensions, GUARDIAN_ROLE);
        enclaveRegistry.proposeVerifier(quorum);
        vm.stopPrank();
        vm.warp(block.timestamp + ADMIN_DELAY);
        eq(address(enclaveRegistry.verifier()), address(quorum));
    }

    // Evidence

    function test_AnyTwoOfThreeActivateAnEpoch() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        _activate(verdict, _signed(verdict, keys[0], keys[1]));
        verdict = verdictFor(logId, NEXT_KEY + 1);
        _activate(verdict, _signed(verdict, keys[0], keys[2]));
        verdict = verdictFor(logId, NEXT_KEY + 2);
        _activate(verdict, _signed(verdict, keys[1], keys[2]));
        eq(enclaveRegistry.epochCountOf(logId), 4);
    }

    function test_EvidenceIsExactlyTheThresholdsSignatures() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes memory three = bytes.concat(
            _signed(verdict, keys[0], keys[1]),
            signature(keys[2], _digest(verdict))
        );
        _refused(verdict, three, _wrongLength(195));
        _refused(verdict, signature(keys[0], _digest(verdict)), _wrongLength(65));
        _refused(verdict, "", _wrongLength(0));
        _refused(verdict, bytes.concat(_signed(verdict, keys[0], keys[1]), hex"00"), _wrongLength(131));
    }

    function test_OneMemberCannotSignTwice() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        address member = vm.addr(keys[0]);
        _refused(verdict, _signed(verdict, keys[0], keys[0]), _notAscending(member, member));
    }

    function test_SignersAscend() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes memory reason = _notAscending(vm.addr(keys[1]), vm.addr(keys[0]));
        _refused(verdict, _signed(verdict, keys[1], keys[0]), reason);
    }

    function test_StrangersDoNotCount() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        uint256[] memory pair = _ascending(keys[0], NEWCOMER);
        _refused(verdict, _signed(verdict, pair[0], pair[1]), _notMember(vm.addr(NEWCOMER)));
    }

    function test_TheHighTwinOfASignatureIsRefused() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(keys[0], _digest(verdict));
        bytes32 twin = bytes32(order - uint256(s));
        bytes memory evidence = bytes.concat(r, twin, bytes1(v ^ 7), signature(keys[1], _digest(verdict)));
        _refused(verdict, evidence, abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, twin));
    }

    function test_AnUnrecoverableSignatureIsNobodys() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes memory evidence = bytes.concat(new bytes(65), signature(keys[1], _digest(verdict)));
        _refused(verdict, evidence, abi.encodeWithSelector(ECDSA.ECDSAInvalidSignature.selector));
    }

    /// @dev Every field is signed: with any one changed, the signers recovered are no members.
    function test_EveryFieldOfTheVerdictIsSigned() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes memory evidence = _signed(verdict, keys[0], keys[1]);
        quorum.check(verdict, evidence);
        bytes memory encoded = abi.encode(verdict);
        for (uint256 field = 0; field < 10; ++field) {
            bytes memory changed = bytes.concat(encoded);
            changed[field * 32 + 31] ^= 0x01;
            _notAccepted(abi.decode(changed, (Verdict)), evidence);
        }
    }

    function test_AVerdictForAnotherDeploymentIsNotAccepted() external {
        IQuorumAttestationVerifier other = IQuorumAttestationVerifier(
            create(QUORUM, abi.encode(manager, STRANGER, _addresses(keys), THRESHOLD, ADMIN_DELAY))
        );
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes32 digest = TypedData.digest(other.domainSeparator(), TypedData.hash(verdict));
        bytes memory evidence = bytes.concat(signature(keys[0], digest), signature(keys[1], digest));
        other.check(verdict, evidence);
        _notAccepted(verdict, evidence);
    }

    // Sets

    function test_TheFirstSetIsInForceAtOnce() external view {
        (uint32 set, address[] memory members, uint8 threshold) = quorum.setInForce();
        eq(set, 1);
        eq(keccak256(abi.encode(members)), keccak256(abi.encode(_addresses(keys))));
        eq(threshold, THRESHOLD);
        eq(quorum.changeDelay(), ADMIN_DELAY);
        eq(quorum.domainSeparator(), settlement.domainSeparator());
        (set, members, threshold, ) = quorum.pendingSet();
        eq(set, 0);
        eq(members.length, 0);
        eq(threshold, 0);
    }

    function test_AProposedSetWaitsAndThenReplacesTheOtherWhole() external {
        uint256[] memory next = _ascending(keys[2], NEWCOMER);
        address[] memory members = _addresses(next);
        uint40 effectiveAt = uint40(block.timestamp) + ADMIN_DELAY;
        vm.expectEmit(address(quorum));
        emit IQuorumAttestationVerifier.SetProposed(2, members, 2, effectiveAt);
        vm.prank(ADMIN);
        eq(quorum.proposeSet(members, 2), 2);

        vm.warp(effectiveAt - 1);
        (uint32 set, , ) = quorum.setInForce();
        eq(set, 1);
        (uint32 waiting, address[] memory awaited, uint8 threshold, uint40 from) = quorum.pendingSet();
        eq(waiting, 2);
        eq(keccak256(abi.encode(awaited)), keccak256(abi.encode(members)));
        eq(threshold, 2);
        eq(from, effectiveAt);
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        _notAccepted(verdict, _signed(verdict, next[0], next[1]));
        quorum.check(verdict, _signed(verdict, keys[0], keys[1]));

        vm.warp(effectiveAt);
        (set, , ) = quorum.setInForce();
        eq(set, 2);
        (waiting, , , from) = quorum.pendingSet();
        eq(waiting, 0);
        eq(from, 0);
        verdict = verdictFor(logId, NEXT_KEY);
        _notAccepted(verdict, _signed(verdict, keys[0], keys[1]));
        _activate(verdict, _signed(verdict, next[0], next[1]));
    }

    function test_ANewProposalReplacesTheWaitingOneAndWaitsItself() external {
        uint40 first = uint40(block.timestamp) + ADMIN_DELAY;
        vm.startPrank(ADMIN);
        quorum.proposeSet(_addresses(_ascending(NEWCOMER, NEWCOMER + 1)), 2);
        vm.warp(first - 1);
        eq(quorum.proposeSet(_addresses(_ascending(keys[1], NEWCOMER)), 2), 3);
        vm.stopPrank();
        vm.warp(first); // the replaced set never comes into force
        (uint32 set, , ) = quorum.setInForce();
        eq(set, 1);
        vm.warp(first - 1 + ADMIN_DELAY);
        (set, , ) = quorum.setInForce();
        eq(set, 3);
        vm.prank(ADMIN);
        quorum.proposeSet(_addresses(keys), 3); // a matured set stays while the next waits
        (set, , ) = quorum.setInForce();
        eq(set, 3);
    }

    function test_SetsOutsideTheBoundsAreRefused() external by(ADMIN) {
        address[] memory members = _addresses(keys);
        reverts(_threshold(1, 3));
        quorum.proposeSet(members, 1);
        reverts(_threshold(4, 3));
        quorum.proposeSet(members, 4);
        reverts(_threshold(2, 0));
        quorum.proposeSet(new address[](0), 2);
        address[] memory many = new address[](33);
        reverts(abi.encodeWithSelector(IQuorumAttestationVerifier.TooManyMembers.selector, 33, 32));
        quorum.proposeSet(many, 2);
        address[] memory most = new address[](32);
        for (uint160 i = 0; i < 32; ++i) most[i] = address(i + 1);
        quorum.proposeSet(most, 32);
    }

    function test_MembersAreNamedOnceAndNeverZero() external by(ADMIN) {
        address[] memory members = _addresses(keys);
        members[1] = members[0];
        reverts(_notAscending(members[0], members[0]));
        quorum.proposeSet(members, 2);
        members[0] = address(0);
        reverts(_notAscending(address(0), address(0)));
        quorum.proposeSet(members, 2);
    }

    function test_TheFirstSetIsCheckedAsWell() external {
        reverts(_threshold(1, 3));
        this.create_(_addresses(keys), 1);
    }

    // Suspension

    function test_ASuspendedMembersSignatureCountsNoMore() external {
        address member = vm.addr(keys[1]);
        check(quorum.isMember(member));
        vm.expectEmit(address(quorum));
        emit IQuorumAttestationVerifier.MemberSuspended(member);
        vm.prank(GUARDIAN);
        quorum.suspend(member);
        check(!quorum.isMember(member));
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        _refused(verdict, _signed(verdict, keys[0], keys[1]), _notMember(member));
        _activate(verdict, _signed(verdict, keys[0], keys[2]));
    }

    /// @dev Whoever is suspended, nothing is accepted that was not accepted before.
    function testFuzz_SuspendingNeverLowersWhatIsNeeded(uint8 suspended) external {
        for (uint256 i = 0; i < 3; ++i) {
            if ((suspended >> i) & 1 == 0) continue;
            vm.prank(GUARDIAN);
            quorum.suspend(vm.addr(keys[i]));
        }
        (, address[] memory members, uint8 threshold) = quorum.setInForce();
        eq(threshold, THRESHOLD);
        check(members.length <= 3);
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        _refused(verdict, signature(keys[0], _digest(verdict)), _wrongLength(65));
        for (uint256 i = 0; i < 3; ++i) {
            uint256 other = i == 2 ? 0 : i + 1;
            uint256[] memory pair = _ascending(keys[i], keys[other]);
            bool whole = (suspended >> i) & 1 == 0 && (suspended >> other) & 1 == 0;
            bytes memory evidence = _signed(verdict, pair[0], pair[1]);
            if (whole) quorum.check(verdict, evidence);
            else _notAccepted(verdict, evidence);
        }
    }

    function test_SuspensionReachesTheWaitingSet() external {
        uint256[] memory next = _ascending(keys[0], NEWCOMER);
        vm.prank(ADMIN);
        quorum.proposeSet(_addresses(next), 2);
        vm.startPrank(GUARDIAN);
        quorum.suspend(vm.addr(NEWCOMER)); // only there
        quorum.suspend(vm.addr(keys[0])); // in both
        vm.stopPrank();
        check(!quorum.isMember(vm.addr(keys[0])));
        (, address[] memory awaited, uint8 threshold, ) = quorum.pendingSet();
        eq(awaited.length, 0);
        eq(threshold, 2);
        vm.warp(block.timestamp + ADMIN_DELAY);
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        _notAccepted(verdict, _signed(verdict, next[0], next[1]));
    }

    function test_ASuspendedMemberComesBackWithAnotherSetOnly() external {
        vm.prank(GUARDIAN);
        quorum.suspend(vm.addr(keys[0]));
        vm.prank(ADMIN);
        quorum.proposeSet(_addresses(keys), THRESHOLD);
        check(!quorum.isMember(vm.addr(keys[0])));
        vm.warp(block.timestamp + ADMIN_DELAY);
        check(quorum.isMember(vm.addr(keys[0])));
    }

    function test_OnlyMembersAreSuspended() external {
        address member = vm.addr(keys[0]);
        vm.startPrank(GUARDIAN);
        quorum.suspend(member);
        reverts(_notMember(member));
        quorum.suspend(member);
        reverts(_notMember(STRANGER));
        quorum.suspend(STRANGER);
        vm.stopPrank();
    }

    // The rest

    function test_RolesAreKept() external {
        bytes memory stranger = _unauthorized(STRANGER);
        vm.startPrank(STRANGER);
        reverts(stranger);
        quorum.proposeSet(_addresses(keys), THRESHOLD);
        reverts(stranger);
        quorum.suspend(vm.addr(keys[0]));
        vm.stopPrank();
        reverts(_unauthorized(GUARDIAN));
        vm.prank(GUARDIAN);
        quorum.proposeSet(_addresses(keys), THRESHOLD);
        reverts(_unauthorized(ADMIN));
        vm.prank(ADMIN);
        quorum.suspend(vm.addr(keys[0]));
    }

    function test_TheDescriptionCounts() external {
        string memory tail = " named verifiers signed that they checked the attestation document off chain";
        eq(quorum.description(), string.concat("2 of 3", tail));
        vm.prank(GUARDIAN);
        quorum.suspend(vm.addr(keys[0]));
        eq(quorum.description(), string.concat("2 of 2", tail));
    }

    function test_ARegistryRefusesAQuorumThatChangesFaster() external {
        IQuorumAttestationVerifier fast = _create(_addresses(keys), THRESHOLD, ADMIN_DELAY - 1);
        bytes memory tooFast = abi.encodeWithSelector(
            IEnclaveRegistry.VerifierChangesTooFast.selector,
            fast,
            ADMIN_DELAY - 1,
            ADMIN_DELAY
        );
        reverts(tooFast);
        vm.prank(ADMIN);
        enclaveRegistry.proposeVerifier(fast);
        reverts(tooFast);
        this.createRegistry(fast);
    }

    function test_StorageLiesWhereItIsSaid() external {
        vm.prank(ADMIN);
        quorum.proposeSet(_addresses(keys), 3);
        (, , , uint256 effectiveAt) = quorum.pendingSet();
        eq(_slot(0), bytes32(uint256(uint160(address(manager)))));
        eq(_slot(1), bytes32(uint256(1) | (uint256(2) << 32) | (effectiveAt << 64)));
        eq(_slot(uint256(keccak256(abi.encode(uint256(2), uint256(2))))), bytes32(keys.length));
        eq(_slot(uint256(keccak256(abi.encode(uint256(2), uint256(3))))), bytes32(uint256(3)));
    }

    function create_(address[] calldata members, uint8 threshold) external returns (address) {
        return address(_create(members, threshold, ADMIN_DELAY));
    }

    function createRegistry(IQuorumAttestationVerifier with) external returns (address) {
        bytes memory arguments = abi.encode(manager, receiptLog, with, ADMIN_DELAY, EPOCH_LIFETIME);
        return create(ENCLAVE_REGISTRY, arguments);
    }

    function _create(
        address[] memory members,
        uint8 threshold,
        uint32 changeDelay
    ) private returns (IQuorumAttestationVerifier) {
        bytes memory arguments = abi.encode(manager, settlement, members, threshold, changeDelay);
        return IQuorumAttestationVerifier(create(QUORUM, arguments));
    }

    function _activate(Verdict memory verdict, bytes memory evidence) private {
        vm.prank(OPERATOR);
        enclaveRegistry.activate(verdict, evidence);
    }

    /// @dev By the registry, whose activation must leave nothing behind.
    function _refused(Verdict memory verdict, bytes memory evidence, bytes memory reason) private {
        reverts(reason);
        vm.prank(OPERATOR);
        enclaveRegistry.activate(verdict, evidence);
    }

    /// @dev By the verifier, whichever signer a changed digest makes of a signature.
    function _notAccepted(Verdict memory verdict, bytes memory evidence) private {
        try quorum.check(verdict, evidence) {
            check(false);
        } catch (bytes memory reason) {
            bytes4 selector = bytes4(reason);
            check(
                selector == IQuorumAttestationVerifier.NotMember.selector
                    || selector == IQuorumAttestationVerifier.NotAscending.selector
                    || selector == ECDSA.ECDSAInvalidSignature.selector
            );
        }
    }

    function _signed(Verdict memory verdict, uint256 a, uint256 b) private view returns (bytes memory) {
        bytes32 digest = _digest(verdict);
        return bytes.concat(signature(a, digest), signature(b, digest));
    }

    function _digest(Verdict memory verdict) private view returns (bytes32) {
        return TypedData.digest(settlement.domainSeparator(), TypedData.hash(verdict));
    }

    function _ascending(uint256 a, uint256 b) private pure returns (uint256[] memory sorted) {
        sorted = new uint256[](2);
        (sorted[0], sorted[1]) = vm.addr(a) < vm.addr(b) ? (a, b) : (b, a);
    }

    function _ascending(uint256 a, uint256 b, uint256 c) private pure returns (uint256[] memory sorted) {
        uint256[] memory two = _ascending(a, b);
        sorted = new uint256[](3);
        if (vm.addr(c) < vm.addr(two[0])) (sorted[0], sorted[1], sorted[2]) = (c, two[0], two[1]);
        else if (vm.addr(c) < vm.addr(two[1])) (sorted[0], sorted[1], sorted[2]) = (two[0], c, two[1]);
        else (sorted[0], sorted[1], sorted[2]) = (two[0], two[1], c);
    }

    function _addresses(uint256[] memory of_) private pure returns (address[] memory addresses) {
        addresses = new address[](of_.length);
        for (uint256 i = 0; i < of_.length; ++i) addresses[i] = vm.addr(of_[i]);
    }

    function _slot(uint256 slot) private view returns (bytes32) {
        return vm.load(address(quorum), bytes32(slot));
    }

    function _wrongLength(uint256 given) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IQuorumAttestationVerifier.WrongEvidenceLength.selector, 130, given);
    }

    function _notAscending(address previous, address given) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IQuorumAttestationVerifier.NotAscending.selector, previous, given);
    }

    function _notMember(address account) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IQuorumAttestationVerifier.NotMember.selector, account);
    }

    function _threshold(uint256 given, uint256 most) private pure returns (bytes memory) {
        return
            abi.encodeWithSelector(IQuorumAttestationVerifier.ThresholdOutOfRange.selector, given, 2, most);
    }

    function _unauthorized(address caller) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IAccessManaged.AccessManagedUnauthorized.selector, caller);
    }
}
