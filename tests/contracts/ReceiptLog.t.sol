// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IReceiptLog} from "../../contracts/interfaces/IReceiptLog.sol";
import {Endpoints} from "../../contracts/libraries/Endpoints.sol";
import {MerkleLog} from "../../contracts/libraries/MerkleLog.sol";
import {Receipt, Segment, TypedData} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @dev Logs, endpoints, and the question whether a receipt was settled.
contract ReceiptLogTest is Network {
    function setUp() external {
        deploy();
    }

    function test_AnOperatorsLogsCountFromZeroAndHaveBoundIds() external {
        eq(receiptLog.logCountOf(STRANGER), 0);
        bytes32 first = receiptLog.logIdOf(STRANGER, 0);
        bytes32 structHash = keccak256(abi.encode(TypedData.LOG_TYPEHASH, STRANGER, uint64(0)));
        eq(first, TypedData.digest(settlement.domainSeparator(), structHash));
        vm.expectEmit(address(receiptLog));
        emit IReceiptLog.LogOpened(first, STRANGER, 0);
        eq(openLog(STRANGER), first);
        eq(openLog(STRANGER), receiptLog.logIdOf(STRANGER, 1));
        eq(receiptLog.logCountOf(STRANGER), 2);
        eq(receiptLog.operatorOf(first), STRANGER);
        eq(receiptLog.operatorOf("nowhere"), address(0));
    }

    function test_EveryLogIsListed() external {
        uint256 before = receiptLog.logCount();
        bytes32 opened = openLog(STRANGER);
        eq(receiptLog.logCount(), before + 1);
        eq(receiptLog.logAt(before), opened);
    }

    function test_TheOperatorReplacesTheEndpoints() external {
        string[] memory endpoints = new string[](2);
        (endpoints[0], endpoints[1]) = ("https://log.example", "/ip4/127.0.0.1/tcp/4001");
        vm.expectEmit(address(receiptLog));
        emit IReceiptLog.EndpointsSet(logId, endpoints);
        vm.prank(OPERATOR);
        receiptLog.setEndpoints(logId, endpoints);
        eq(keccak256(abi.encode(receiptLog.endpointsOf(logId))), keccak256(abi.encode(endpoints)));
        vm.prank(OPERATOR);
        receiptLog.setEndpoints(logId, new string[](0));
        eq(receiptLog.endpointsOf(logId).length, 0);
        reverts(abi.encodeWithSelector(IReceiptLog.NotOperator.selector, logId, STRANGER));
        vm.prank(STRANGER);
        receiptLog.setEndpoints(logId, endpoints);
    }

    function test_EndpointsAreFewAndShort() external by(OPERATOR) {
        string[] memory endpoints = new string[](9);
        for (uint256 i = 0; i < 9; ++i) endpoints[i] = "https://log.example";
        bytes memory tooMany = abi.encodeWithSelector(Endpoints.TooManyEndpoints.selector, 9, 8);
        reverts(tooMany);
        receiptLog.setEndpoints(logId, endpoints);
        reverts(tooMany);
        receiptLog.openLog(endpoints);

        endpoints = new string[](8);
        for (uint256 i = 0; i < 8; ++i) endpoints[i] = string(new bytes(256));
        receiptLog.setEndpoints(logId, endpoints);
        endpoints[7] = string(new bytes(257));
        reverts(abi.encodeWithSelector(Endpoints.EndpointLength.selector, 7, 257, 256));
        receiptLog.setEndpoints(logId, endpoints);
        endpoints[7] = "";
        reverts(abi.encodeWithSelector(Endpoints.EndpointLength.selector, 7, 0, 256));
        receiptLog.setEndpoints(logId, endpoints);
    }

    function test_ASettledReceiptNamesItsBatch() external {
        (Receipt memory receipt, uint64 index, bytes32[] memory proof) = _settled();
        eq(receiptLog.settledIn(receipt, index, proof, anchor), anchor.sequence);
    }

    function test_AnotherReceiptWasNotSettled() external {
        (Receipt memory receipt, uint64 index, bytes32[] memory proof) = _settled();
        receipt.segments[0].amount += 1;
        _refused(receipt, index, proof, MerkleLog.RootMismatch.selector);
        receipt.segments[0].amount -= 1;
        receipt.head.total += 1;
        _refused(receipt, index, proof, MerkleLog.RootMismatch.selector);
        receipt.head.total -= 1;
        receipt.modelKey = keccak256("another model");
        _refused(receipt, index, proof, MerkleLog.RootMismatch.selector);
    }

    function test_TheIndexMustLieInThatBatch() external {
        (Receipt memory receipt, uint64 index, ) = _settled();
        settle(nextBatch("", "", 0)); // a later batch, whose tree also holds the receipt
        bytes32[] memory proof = ReferenceTree.inclusion(leaves, index, anchor.newSize);
        reverts(
            abi.encodeWithSelector(
                IReceiptLog.IndexOutsideBatch.selector,
                index,
                anchor.prevSize,
                anchor.newSize
            )
        );
        receiptLog.settledIn(receipt, index, proof, anchor);
        reverts(
            abi.encodeWithSelector(
                IReceiptLog.IndexOutsideBatch.selector,
                anchor.newSize,
                anchor.prevSize,
                anchor.newSize
            )
        );
        receiptLog.settledIn(receipt, anchor.newSize, proof, anchor);
    }

    function test_TheAnchorMustBeTheChains() external {
        (Receipt memory receipt, uint64 index, bytes32[] memory proof) = _settled();
        anchor.newRoot = keccak256("other");
        reverts(abi.encodeWithSelector(IReceiptLog.UnknownAnchor.selector, logId, anchor.sequence));
        receiptLog.settledIn(receipt, index, proof, anchor);
        anchor.sequence += 1;
        reverts(abi.encodeWithSelector(IReceiptLog.UnknownAnchor.selector, logId, anchor.sequence));
        receiptLog.settledIn(receipt, index, proof, anchor);
    }

    function test_TheReceiptMustBeOfThatLog() external {
        (Receipt memory receipt, uint64 index, bytes32[] memory proof) = _settled();
        receipt.head.logId = "other";
        reverts(abi.encodeWithSelector(IReceiptLog.WrongLog.selector, logId, bytes32("other")));
        receiptLog.settledIn(receipt, index, proof, anchor);
    }

    function test_ProofsCanBeCheckedByAnyone() external {
        settle(nextBatch("", "", 0));
        settle(nextBatch("", "", 0));
        bytes32 root = ReferenceTree.root(leaves, 2);
        receiptLog.checkInclusion(leaves[1], 1, 2, root, ReferenceTree.inclusion(leaves, 1, 2));
        bytes32[] memory proof = ReferenceTree.consistency(leaves, 1, 2);
        receiptLog.checkConsistency(1, leaves[0], 2, root, proof);
        bytes32 computed = sha256(abi.encodePacked(hex"01", leaves[1], leaves[1]));
        reverts(abi.encodeWithSelector(MerkleLog.RootMismatch.selector, root, computed));
        receiptLog.checkConsistency(1, leaves[1], 2, root, proof);
    }

    /// @dev Three batches; the receipt is the middle leaf of the last one.
    function _settled() private returns (Receipt memory receipt, uint64 index, bytes32[] memory proof) {
        settle(nextBatch("", "", 0));
        settle(nextBatch("", "", 0));
        receipt = _receipt();
        bytes32 digest = TypedData.digest(settlement.domainSeparator(), _structHash(receipt));
        leaves.push(keccak256("leaf before"));
        index = uint64(leaves.length);
        leaves.push(sha256(abi.encodePacked(uint8(0), digest)));
        leaves.push(keccak256("leaf after"));
        settle(nextBatch("", "", 0));
        proof = ReferenceTree.inclusion(leaves, index, anchor.newSize);
    }

    function _receipt() private view returns (Receipt memory receipt) {
        receipt.head.logId = logId;
        receipt.head.jobId = bytes16(uint128(0x0190a0b0c0d07000800000000000000a));
        receipt.head.total = 42;
        receipt.modelKey = keccak256("a/model");
        receipt.segments = new Segment[](2);
        receipt.segments[0].amount = 40;
        receipt.segments[1].amount = 2;
    }

    function _structHash(Receipt memory receipt) private pure returns (bytes32) {
        bytes32[] memory segments = new bytes32[](receipt.segments.length);
        for (uint256 i = 0; i < segments.length; ++i) {
            segments[i] = keccak256(abi.encode(TypedData.SEGMENT_TYPEHASH, receipt.segments[i]));
        }
        bytes memory head = abi.encode(TypedData.RECEIPT_TYPEHASH, receipt.head);
        return keccak256(abi.encodePacked(head, receipt.modelKey, keccak256(abi.encodePacked(segments))));
    }

    function _refused(
        Receipt memory receipt,
        uint64 index,
        bytes32[] memory proof,
        bytes4 selector
    ) private view {
        try receiptLog.settledIn(receipt, index, proof, anchor) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(selector));
        }
    }
}
