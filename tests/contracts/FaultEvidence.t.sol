// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {IObjectiveFaults} from "../../contracts/interfaces/IObjectiveFaults.sol";
import {Checkpoint, Completion, Receipt, TypedData} from "../../contracts/libraries/TypedData.sol";
import {Evidence} from "./support/Evidence.sol";

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @dev What is evidence, and that nothing an honest party signs can be made into some.
contract FaultEvidenceTest is Evidence {
    bytes32 private constant AWARD = "award";
    uint256 private constant NEXT_KEY = 0xe2;
    uint256 private constant OTHER_LOG_KEY = 0xe3;
    address private constant ELSEWHERE = address(0xe15e);

    function setUp() external {
        deploy();
        prepare();
    }

    // Completions

    function test_AnIdenticalCompletionIsNoSecondOne() external {
        Completion memory made = completion(NODE, AWARD);
        _refused(made, made, NODE_KEY, _sameCompletion(made)); // sent twice, as after a lost answer
    }

    function test_SigningTheSameAnewIsNoFault() external {
        Completion memory made = completion(NODE, AWARD);
        bytes memory one = signed(NODE_KEY, made);
        bytes memory two = signedAnew(NODE_KEY, digestOf(made));
        check(keccak256(one) != keccak256(two));
        eq(signerOf(digestOf(made), two), NODE);
        reverts(_sameCompletion(made));
        faults.reportCompletions(made, one, made, two, REPORTER);
    }

    /// @dev Ranks have awards of their own, so a node may complete several of one job.
    function test_CompletionsOfTwoAwardsAreNoFault() external {
        _refused(
            completion(NODE, "rank 1"),
            completion(NODE, "rank 2"),
            NODE_KEY,
            abi.encodeWithSelector(
                IObjectiveFaults.DifferentAwards.selector,
                bytes32("rank 1"),
                bytes32("rank 2")
            )
        );
    }

    function test_CompletionsOfTwoNodesAreNoFault() external {
        address other = vm.addr(0xbad);
        bytes memory one = signed(NODE_KEY, completion(NODE, AWARD));
        bytes memory two = signed(0xbad, completion(other, AWARD));
        reverts(abi.encodeWithSelector(IObjectiveFaults.DifferentNodes.selector, NODE, other));
        faults.reportCompletions(completion(NODE, AWARD), one, completion(other, AWARD), two, REPORTER);
    }

    function test_BothCompletionsAreTheNodesOwn() external {
        Completion memory made = completion(NODE, AWARD);
        Completion memory forged = completion(NODE, AWARD);
        forged.outputTokens += 1;
        (bytes memory one, bytes memory two) = (signed(NODE_KEY, made), signed(0xbad, forged));
        bytes memory refusal = _wrongSigner(NODE, vm.addr(0xbad));
        reverts(refusal);
        faults.reportCompletions(made, one, forged, two, REPORTER);
        reverts(refusal);
        faults.reportCompletions(forged, two, made, one, REPORTER);
    }

    /// @dev The specification's one completion per award means all of its members.
    function test_AnAuditCommitmentMakesAnotherCompletion() external {
        Completion memory second = completion(NODE, AWARD);
        second.auditCommitment = "audited";
        report(completion(NODE, AWARD), second, NODE_KEY);
        eq(bondOf(NODE), 0);
    }

    function testFuzz_EveryMemberOfACompletionCounts(uint256 member, uint256 change) external {
        Completion memory second = _changed(completion(NODE, AWARD), bound(member, 2, 15), change);
        vm.assume(digestOf(second) != digestOf(completion(NODE, AWARD)));
        report(completion(NODE, AWARD), second, NODE_KEY);
        eq(bondOf(NODE), 0);
    }

    function testFuzz_NobodyElsesPenMakesASecondCompletion(uint256 member, uint256 change) external {
        Completion memory forged = _changed(completion(NODE, AWARD), bound(member, 2, 15), change);
        vm.assume(digestOf(forged) != digestOf(completion(NODE, AWARD)));
        bytes memory signature_ = signed(NODE_KEY, completion(NODE, AWARD));
        address signer = signerOf(digestOf(forged), signature_);
        reverts(signer == address(0) ? _invalidSignature() : _wrongSigner(NODE, signer));
        faults.reportCompletions(completion(NODE, AWARD), signature_, forged, signature_, REPORTER);
    }

    // Signatures

    function test_OneFormOfASignatureIsAccepted() external {
        Completion memory first = completion(NODE, AWARD);
        Completion memory second = completion(NODE, AWARD);
        second.outputTokens += 1;
        (bytes memory one, bytes memory two) = (signed(NODE_KEY, first), signed(NODE_KEY, second));
        bytes memory upper = malleated(two);
        eq(signerOf(digestOf(second), upper), NODE); // the precompile would take it
        (uint8 v, bytes32 r, bytes32 s) = parts(upper);
        reverts(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, s));
        faults.reportCompletions(first, one, second, upper, REPORTER);
        (v, r, s) = parts(two);
        reverts(_invalidSignature());
        faults.reportCompletions(first, one, second, abi.encodePacked(r, s, v - 27), REPORTER);
        reverts(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 64));
        faults.reportCompletions(first, one, second, abi.encodePacked(r, s), REPORTER);
        reverts(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 66));
        faults.reportCompletions(first, one, second, abi.encodePacked(two, v), REPORTER);
        eq(bondOf(NODE), BOND);
    }

    // Checkpoints

    function test_RootsOfTwoEpochsAreAFault() external {
        uint64 next = activate(logId, NEXT_KEY);
        Checkpoint memory first = checkpoint(logId, 1, 7, "one root");
        Checkpoint memory second = checkpoint(logId, next, 7, "another root");
        report(second, NEXT_KEY, first, ENCLAVE_KEY);
        eq(reserveOf(logId), 0);
    }

    function test_EndedExpiredAndRevokedEpochsCount() external {
        activate(logId, NEXT_KEY); // ends the first
        reportTwoRoots(1);
        fundReserve(RESERVE);
        vm.warp(block.timestamp + EPOCH_LIFETIME);
        reportTwoRoots(2);
        fundReserve(RESERVE);
        vm.prank(OPERATOR); // who would, to get away with it
        enclaveRegistry.revokeOwnEpoch(logId, 1);
        reportTwoRoots(3);
        fundReserve(RESERVE);
        vm.prank(GUARDIAN);
        enclaveRegistry.revokePair(1);
        reportTwoRoots(4);
        eq(reserveOf(logId), 0);
    }

    function test_TheSameRootIsNoFault() external {
        bytes memory sameRoot = abi.encodeWithSelector(IObjectiveFaults.SameRoot.selector, bytes32("root"));
        uint64 next = activate(logId, NEXT_KEY);
        Checkpoint memory first = checkpoint(logId, 1, 7, "root");
        Checkpoint memory second = checkpoint(logId, 1, 7, "root");
        second.timeMs += 1_000;
        _refused(first, ENCLAVE_KEY, second, ENCLAVE_KEY, sameRoot); // signed again later
        second.epoch = next;
        _refused(first, ENCLAVE_KEY, second, NEXT_KEY, sameRoot); // and by the next epoch
    }

    function test_RootsOfTwoSizesAreNoFault() external {
        _refused(
            checkpoint(logId, 1, 7, "root of 7"),
            ENCLAVE_KEY,
            checkpoint(logId, 1, 8, "root of 8"),
            ENCLAVE_KEY,
            abi.encodeWithSelector(IObjectiveFaults.DifferentSizes.selector, 7, 8)
        );
    }

    /// @dev Even where one key signs for both logs.
    function test_RootsOfTwoLogsAreNoFault() external {
        bytes32 otherLog = openLog(OPERATOR);
        activate(otherLog, ENCLAVE_KEY);
        _refused(
            checkpoint(logId, 1, 7, "one root"),
            ENCLAVE_KEY,
            checkpoint(otherLog, 1, 7, "another root"),
            ENCLAVE_KEY,
            abi.encodeWithSelector(IObjectiveFaults.DifferentLogs.selector, logId, otherLog)
        );
    }

    function test_EachIsSignedByTheKeyOfTheEpochItNames() external {
        uint64 next = activate(logId, NEXT_KEY);
        Checkpoint memory first = checkpoint(logId, 1, 7, "one root");
        Checkpoint memory second = checkpoint(logId, next, 7, "another root");
        (address key, address nextKey) = (vm.addr(ENCLAVE_KEY), vm.addr(NEXT_KEY));
        _refused(first, ENCLAVE_KEY, second, ENCLAVE_KEY, _wrongSigner(nextKey, key));
        _refused(first, NEXT_KEY, second, NEXT_KEY, _wrongSigner(key, nextKey));
        _refused(first, ENCLAVE_KEY, second, 0xbad, _wrongSigner(nextKey, vm.addr(0xbad)));
    }

    function test_AKeyOfAnotherLogDoesNotSignForThisOne() external {
        bytes32 otherLog = openLog(OPERATOR);
        activate(otherLog, OTHER_LOG_KEY);
        _refused(
            checkpoint(logId, 1, 7, "one root"),
            ENCLAVE_KEY,
            checkpoint(logId, 1, 7, "another root"),
            OTHER_LOG_KEY,
            _wrongSigner(vm.addr(ENCLAVE_KEY), vm.addr(OTHER_LOG_KEY))
        );
    }

    function test_AnEpochThatNeverWasSignsNothing() external {
        _refused(
            checkpoint(logId, 1, 7, "one root"),
            ENCLAVE_KEY,
            checkpoint(logId, 2, 7, "another root"),
            NEXT_KEY,
            abi.encodeWithSelector(IEnclaveRegistry.UnknownEpoch.selector, logId, 2)
        );
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        wrong.head.logId = "no log";
        bytes memory signature_ = signed(ENCLAVE_KEY, wrong);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.UnknownEpoch.selector, bytes32("no log"), 1));
        faults.reportReceipt(wrong, signature_, REPORTER);
    }

    // Receipts

    function test_AReceiptThatAddsUpIsNoFault() external {
        _refusedTotal(receipt(300, amountsOf(100, 200)));
        _refusedTotal(receipt(0, amountsOf(0, 0)));
        _refusedTotal(receipt(0, new uint96[](0))); // unserved
        Receipt memory issuedAnew = receipt(300, amountsOf(100, 200));
        issuedAnew.head.supersedes = digestOf(issuedAnew);
        _refusedTotal(issuedAnew);
        _refusedTotal(receipt(type(uint96).max, amountsOf(type(uint96).max - 1, 1)));
    }

    function test_AReceiptIsSignedByTheKeyOfItsEpoch() external {
        activate(logId, NEXT_KEY);
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        bytes memory signature_ = signed(NEXT_KEY, wrong);
        reverts(_wrongSigner(vm.addr(ENCLAVE_KEY), vm.addr(NEXT_KEY)));
        faults.reportReceipt(wrong, signature_, REPORTER);
        faults.reportReceipt(wrong, signed(ENCLAVE_KEY, wrong), REPORTER);
        eq(reserveOf(logId), 0);
    }

    function testFuzz_AReceiptIsAFaultIffItDoesNotAddUp(uint96 total, uint96 first, uint96 second) external {
        if (uint256(first) + second == total) second ^= 1;
        Receipt memory made = receipt(total, amountsOf(first, second));
        faults.reportReceipt(made, signed(ENCLAVE_KEY, made), REPORTER);
        eq(reserveOf(logId), 0);
        first = uint96(bound(first, 0, type(uint96).max - second));
        _refusedTotal(receipt(first + second, amountsOf(first, second)));
    }

    // Other chains and deployments: the digest differs, so the signature names somebody else.

    function test_WhatWasSignedForAnotherChainOrDeploymentIsNoEvidence() external {
        _refusedOf(_separatorOf(1, address(settlement)));
        _refusedOf(_separatorOf(block.chainid, ELSEWHERE));
        _refusedOf(_separatorOf(block.chainid, address(faults))); // a contract's own address is no domain
    }

    function testFuzz_WhatWasSignedElsewhereIsNoEvidence(uint64 chainId, address elsewhere) external {
        vm.assume(chainId != block.chainid || elsewhere != address(settlement));
        _refusedOf(_separatorOf(chainId, elsewhere));
    }

    /// @dev All that honest parties sign, any two of it, under either signature.
    function testFuzz_HonestMessagesAreNeverEvidence(uint256 one, uint256 two) external {
        bytes32 otherLog = openLog(OPERATOR);
        activate(otherLog, OTHER_LOG_KEY);
        activate(logId, NEXT_KEY);
        _tryCompletions(one, two);
        _tryCheckpoints(one, two, otherLog);
        _tryReceipt(one);
        eq(bondOf(NODE), BOND);
        eq(reserveOf(logId), RESERVE);
    }

    function _tryCompletions(uint256 one, uint256 two) private {
        (Completion memory first, bytes memory a) = _honestCompletion(one);
        (Completion memory second, bytes memory b) = _honestCompletion(two);
        try faults.reportCompletions(first, a, second, b, REPORTER) {
            check(false);
        } catch (bytes memory reason) {
            bytes4 refusal = bytes4(reason);
            check(
                refusal == IObjectiveFaults.DifferentNodes.selector
                    || refusal == IObjectiveFaults.DifferentAwards.selector
                    || refusal == IObjectiveFaults.SameCompletion.selector
            );
        }
    }

    function _tryCheckpoints(uint256 one, uint256 two, bytes32 otherLog) private {
        (Checkpoint memory first, bytes memory a) = _honestCheckpoint(one, otherLog);
        (Checkpoint memory second, bytes memory b) = _honestCheckpoint(two, otherLog);
        try faults.reportCheckpoints(first, a, second, b, REPORTER) {
            check(false);
        } catch (bytes memory reason) {
            bytes4 refusal = bytes4(reason);
            check(
                refusal == IObjectiveFaults.DifferentLogs.selector
                    || refusal == IObjectiveFaults.DifferentSizes.selector
                    || refusal == IObjectiveFaults.SameRoot.selector
            );
        }
    }

    function _tryReceipt(uint256 seed) private {
        uint96[] memory amounts = new uint96[](seed % 4);
        uint96 total;
        for (uint256 i = 0; i < amounts.length; ++i) {
            amounts[i] = uint96(bound(uint256(keccak256(abi.encode(seed, i))), 0, type(uint96).max / 4));
            total += amounts[i];
        }
        _refusedTotal(receipt(total, amounts));
    }

    /// @dev One of two awards by one of two nodes, signed by it for the first or for a second time.
    function _honestCompletion(
        uint256 seed
    ) private view returns (Completion memory made, bytes memory signature_) {
        uint256 key = seed & 1 == 0 ? NODE_KEY : NODE_KEY + 1;
        made = completion(vm.addr(key), bytes32((seed >> 1) & 1));
        bytes32 digest = digestOf(made);
        signature_ = (seed >> 2) & 1 == 0 ? signature(key, digest) : signedAnew(key, digest);
    }

    /// @dev One of two sizes of one of two logs, by one of their epochs, at any time.
    function _honestCheckpoint(
        uint256 seed,
        bytes32 otherLog
    ) private view returns (Checkpoint memory made, bytes memory signature_) {
        bool other = seed & 1 == 1;
        bool later = !other && (seed >> 1) & 1 == 1;
        bytes32 log = other ? otherLog : logId;
        uint64 size = uint64((seed >> 2) & 1);
        made = checkpoint(log, later ? 2 : 1, size, keccak256(abi.encode(log, size)));
        made.timeMs = uint64(seed >> 64);
        signature_ = signed(
            other
                ? OTHER_LOG_KEY
                : later
                    ? NEXT_KEY
                    : ENCLAVE_KEY,
            made
        );
    }

    /// @dev Member `member` of `made` with its lowest bits set to those of `change`.
    function _changed(
        Completion memory made,
        uint256 member,
        uint256 change
    ) private pure returns (Completion memory) {
        uint8[16] memory widths = [0, 0, 32, 32, 32, 8, 8, 4, 4, 4, 32, 1, 8, 8, 8, 32];
        bytes memory words = abi.encode(made);
        uint256 word = change >> (256 - 8 * uint256(widths[member]));
        assembly ("memory-safe") {
            mstore(add(words, mul(32, add(member, 1))), word)
        }
        return abi.decode(words, (Completion));
    }

    /// @dev Evidence of all three faults, signed under another separator, convicts nobody here.
    function _refusedOf(bytes32 separator) private {
        Completion memory done = completion(NODE, AWARD);
        Completion memory again = completion(NODE, AWARD);
        again.outputTokens += 1;
        bytes memory one = signature(NODE_KEY, TypedData.digest(separator, TypedData.hash(done)));
        bytes memory two = signature(NODE_KEY, TypedData.digest(separator, TypedData.hash(again)));
        reverts(_wrongSigner(NODE, signerOf(digestOf(done), one)));
        faults.reportCompletions(done, one, again, two, REPORTER);
        bytes memory here = signed(NODE_KEY, done); // one of here and one of elsewhere
        reverts(_wrongSigner(NODE, signerOf(digestOf(again), two)));
        faults.reportCompletions(done, here, again, two, REPORTER);

        address key = vm.addr(ENCLAVE_KEY);
        Checkpoint memory root = checkpoint(logId, 1, 7, "one root");
        Checkpoint memory other = checkpoint(logId, 1, 7, "another root");
        one = signature(ENCLAVE_KEY, TypedData.digest(separator, TypedData.hash(root)));
        two = signature(ENCLAVE_KEY, TypedData.digest(separator, TypedData.hash(other)));
        reverts(_wrongSigner(key, signerOf(digestOf(root), one)));
        faults.reportCheckpoints(root, one, other, two, REPORTER);

        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        one = signature(ENCLAVE_KEY, TypedData.digest(separator, TypedData.hash(wrong)));
        reverts(_wrongSigner(key, signerOf(digestOf(wrong), one)));
        faults.reportReceipt(wrong, one, REPORTER);
    }

    function _refused(
        Completion memory first,
        Completion memory second,
        uint256 key,
        bytes memory reason
    ) private {
        (bytes memory one, bytes memory two) = (signed(key, first), signed(key, second));
        reverts(reason);
        faults.reportCompletions(first, one, second, two, REPORTER);
    }

    function _refused(
        Checkpoint memory first,
        uint256 firstKey,
        Checkpoint memory second,
        uint256 secondKey,
        bytes memory reason
    ) private {
        (bytes memory one, bytes memory two) = (signed(firstKey, first), signed(secondKey, second));
        reverts(reason);
        faults.reportCheckpoints(first, one, second, two, REPORTER);
    }

    function _refusedTotal(Receipt memory made) private {
        bytes memory signature_ = signed(ENCLAVE_KEY, made);
        reverts(abi.encodeWithSelector(IObjectiveFaults.RightTotal.selector, made.head.total));
        faults.reportReceipt(made, signature_, REPORTER);
    }

    function _separatorOf(uint256 chainId, address elsewhere) private pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    TypedData.DOMAIN_TYPEHASH,
                    keccak256("Pinaivu"),
                    keccak256("1"),
                    chainId,
                    elsewhere
                )
            );
    }

    function _sameCompletion(Completion memory made) private view returns (bytes memory) {
        return abi.encodeWithSelector(IObjectiveFaults.SameCompletion.selector, digestOf(made));
    }

    function _wrongSigner(address key, address signer) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IObjectiveFaults.WrongSigner.selector, key, signer);
    }

    function _invalidSignature() private pure returns (bytes memory) {
        return abi.encodeWithSelector(ECDSA.ECDSAInvalidSignature.selector);
    }
}
