// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ReceiptBonus} from "../../contracts/examples/ReceiptBonus.sol";
import {ILogAnchors} from "../../contracts/interfaces/ILogAnchors.sol";
import {IReceiptLog} from "../../contracts/interfaces/IReceiptLog.sol";
import {MerkleLog} from "../../contracts/libraries/MerkleLog.sol";
import {Receipt, Segment, TypedData} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @dev The example contract, on batches that Settlement settled.
contract ReceiptBonusTest is Network {
    address private constant PAYER = address(0x9a7e4);
    address private constant NODE = address(0x10de);
    address private constant GATEWAY = address(0x6a7e);
    bytes16 private constant JOB = bytes16(uint128(0x0190a0b0c0d07000800000000000000a));
    uint96 private constant BONUS = 5;
    uint32 private constant LEAST = 100;

    ReceiptBonus private bonus;
    uint256 private number;

    event BonusPaid(uint256 indexed offer, bytes16 indexed jobId, uint64 sequence, uint96 bonus);

    function setUp() external {
        deploy();
        bonus = new ReceiptBonus(token, receiptLog);
        token.mint(PAYER, 12);
        vm.startPrank(PAYER);
        token.approve(address(bonus), 12);
        number = bonus.offer(NODE, logId, BONUS, 12, LEAST, uint40(block.timestamp + 1 days));
        vm.stopPrank();
    }

    function test_ASettledReceiptPaysItsNodeOnce() external {
        (uint64 index, Receipt memory receipt) = _settle(_receipt());
        bytes32[] memory proof = _proof(index);
        vm.expectEmit(address(bonus));
        emit BonusPaid(number, JOB, anchor.sequence, BONUS);
        vm.prank(STRANGER);
        bonus.claim(number, receipt, index, proof, anchor);
        eq(token.balanceOf(NODE), BONUS);
        eq(bonus.offerOf(number).left, 12 - BONUS);
        reverts(abi.encodeWithSelector(ReceiptBonus.AlreadyPaid.selector, number, GATEWAY, JOB));
        bonus.claim(number, receipt, index, proof, anchor);
    }

    /// @dev The same job again, as an epoch that re-issued it might have appended and settled it.
    function test_TheSameJobAtAnotherPlaceIsNotPaidAgain() external {
        (uint64 index, Receipt memory receipt) = _settle(_receipt());
        bonus.claim(number, receipt, index, _proof(index), anchor);
        receipt.head.epoch = 2;
        (index, receipt) = _settle(receipt);
        bytes32[] memory proof = _proof(index);
        reverts(abi.encodeWithSelector(ReceiptBonus.AlreadyPaid.selector, number, GATEWAY, JOB));
        bonus.claim(number, receipt, index, proof, anchor);
    }

    function test_TheTokensOfTheNodesOwnSegmentsCount() external {
        Receipt memory receipt = _receipt();
        receipt.segments[1].outputBilled = LEAST - 61;
        (uint64 index, ) = _settle(receipt);
        bytes32[] memory proof = _proof(index);
        reverts(abi.encodeWithSelector(ReceiptBonus.TooFewTokens.selector, LEAST, LEAST - 1));
        bonus.claim(number, receipt, index, proof, anchor);
    }

    function test_AnotherPayersReceiptDoesNotCount() external {
        Receipt memory receipt = _receipt();
        receipt.head.payer = STRANGER;
        (uint64 index, ) = _settle(receipt);
        bytes32[] memory proof = _proof(index);
        reverts(abi.encodeWithSelector(ReceiptBonus.WrongPayer.selector, PAYER, STRANGER));
        bonus.claim(number, receipt, index, proof, anchor);
    }

    function test_AnotherLogsReceiptDoesNotCount() external {
        bytes32 promised = logId;
        _useLogOfItsOwn();
        Receipt memory receipt = _receipt();
        (uint64 index, ) = _settle(receipt);
        bytes32[] memory proof = _proof(index);
        eq(receiptLog.settledIn(receipt, index, proof, anchor), 1); // it was settled, in its log
        reverts(abi.encodeWithSelector(IReceiptLog.WrongLog.selector, promised, logId));
        bonus.claim(number, receipt, index, proof, anchor);

        ILogAnchors.Anchor memory claimed = anchor;
        claimed.logId = promised;
        reverts(abi.encodeWithSelector(IReceiptLog.WrongLog.selector, promised, logId));
        bonus.claim(number, receipt, index, proof, claimed);
    }

    function test_TheIndexMustBeTheReceipts() external {
        (uint64 index, Receipt memory receipt) = _settle(_receipt());
        bytes32[] memory proof = _proof(index + 1);
        bytes32 root = anchor.newRoot;
        try bonus.claim(number, receipt, index + 1, proof, anchor) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(MerkleLog.RootMismatch.selector));
        }
        eq(root, anchor.newRoot);
        reverts(
            abi.encodeWithSelector(
                IReceiptLog.IndexOutsideBatch.selector,
                anchor.newSize,
                anchor.prevSize,
                anchor.newSize
            )
        );
        bonus.claim(number, receipt, anchor.newSize, proof, anchor);
    }

    function test_AnUnsettledReceiptIsNotPaid() external {
        settle(nextBatch("", "", 0));
        Receipt memory receipt = _receipt();
        uint64 index = _append(receipt);
        bytes32[] memory proof = ReferenceTree.inclusion(leaves, index, leaves.length);
        ILogAnchors.Anchor memory hoped = ILogAnchors.Anchor({
            logId: logId,
            sequence: anchor.sequence + 1,
            prevSize: anchor.newSize,
            newSize: uint64(leaves.length),
            newRoot: ReferenceTree.root(leaves, leaves.length),
            batchDigest: keccak256("a batch that nobody settled")
        });
        reverts(abi.encodeWithSelector(IReceiptLog.UnknownAnchor.selector, logId, hoped.sequence));
        bonus.claim(number, receipt, index, proof, hoped);

        settle(nextBatch("", "", 0)); // now it is, in the same tree
        bonus.claim(number, receipt, index, proof, anchor);
        eq(token.balanceOf(NODE), BONUS);
    }

    function test_NoMoreIsPaidThanWasFunded() external {
        Receipt memory receipt = _receipt();
        for (uint128 job = 1; job <= 2; ++job) {
            receipt.head.jobId = bytes16(job);
            (uint64 leaf, ) = _settle(receipt);
            bonus.claim(number, receipt, leaf, _proof(leaf), anchor);
        }
        receipt.head.jobId = bytes16(uint128(3));
        (uint64 index, ) = _settle(receipt);
        bytes32[] memory proof = _proof(index);
        reverts(abi.encodeWithSelector(ReceiptBonus.Exhausted.selector, number, BONUS, 2));
        bonus.claim(number, receipt, index, proof, anchor);
    }

    function test_WhatIsLeftGoesBackAtTheEnd() external {
        uint256 endsAt = block.timestamp + 1 days;
        reverts(abi.encodeWithSelector(ReceiptBonus.NotEndedYet.selector, number, endsAt));
        bonus.end(number);
        vm.warp(endsAt);
        vm.prank(STRANGER);
        bonus.end(number);
        eq(token.balanceOf(PAYER), 12);
        bonus.end(number);
        eq(token.balanceOf(PAYER), 12);
    }

    /// @dev Settles a batch of three leaves, `receipt` in the middle.
    function _settle(Receipt memory receipt) private returns (uint64 index, Receipt memory) {
        leaves.push(sha256(abi.encode("before", leaves.length)));
        index = _append(receipt);
        leaves.push(sha256(abi.encode("after", leaves.length)));
        settle(nextBatch("", "", 0));
        return (index, receipt);
    }

    function _append(Receipt memory receipt) private returns (uint64 index) {
        bytes32 digest = TypedData.digest(settlement.domainSeparator(), TypedData.hash(receipt));
        index = uint64(leaves.length);
        leaves.push(MerkleLog.leafHash(digest));
    }

    function _proof(uint64 index) private view returns (bytes32[] memory) {
        return ReferenceTree.inclusion(leaves, index, anchor.newSize);
    }

    /// @dev From here on the fixture's helpers work on a second log of the same operator.
    function _useLogOfItsOwn() private {
        logId = openLog(OPERATOR);
        epoch = activate(logId, ENCLAVE_KEY);
        delete leaves;
        delete anchor;
    }

    function _receipt() private view returns (Receipt memory receipt) {
        receipt.head.logId = logId;
        receipt.head.jobId = JOB;
        receipt.head.gateway = GATEWAY;
        receipt.head.payer = PAYER;
        receipt.modelKey = keccak256("a/model");
        receipt.segments = new Segment[](3);
        (receipt.segments[0].node, receipt.segments[0].outputBilled) = (NODE, 60);
        (receipt.segments[1].node, receipt.segments[1].outputBilled) = (NODE, 40);
        (receipt.segments[2].node, receipt.segments[2].outputBilled) = (STRANGER, 1_000);
    }
}
