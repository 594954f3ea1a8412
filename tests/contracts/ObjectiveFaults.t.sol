// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IObjectiveFaults} from "../../contracts/interfaces/IObjectiveFaults.sol";
import {ISettlementBase} from "../../contracts/interfaces/ISettlementBase.sol";
import {Checkpoint, Completion, Receipt} from "../../contracts/libraries/TypedData.sol";
import {Evidence} from "./support/Evidence.sol";
import {IMintable} from "./support/IMintable.sol";
import {BlockingToken, ReenteringToken} from "./support/Tokens.sol";

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @dev What a proven fault costs whom, and how often. That honest evidence is none: FaultEvidence.t.sol.
contract ObjectiveFaultsTest is Evidence {
    bytes32 private constant AWARD = "award";
    uint96 private constant BOND_REWARD = BOND / 10; // rounded down
    uint96 private constant RESERVE_REWARD = RESERVE / 10;

    function setUp() external {
        deploy();
        prepare();
    }

    function test_TheAddressLeadsToAllTheRest() external view {
        eq(faults.settlement(), address(settlement));
        eq(faults.domainSeparator(), settlement.domainSeparator());
        eq(address(faults.nodeRegistry()), address(nodeRegistry));
        eq(address(faults.enclaveRegistry()), address(enclaveRegistry));
        eq(address(faults.token()), address(token));
        eq(faults.beneficiary(), BENEFICIARY);
        eq(faults.REWARD_BPS(), 1_000);
    }

    function test_RegistriesOfAnotherDeploymentAreRefused() external {
        address future = futureAddress(4);
        bytes memory arguments = nodeRegistryArguments(future, futureAddress(3));
        INodeRegistry nodes = INodeRegistry(create(NODE_REGISTRY, arguments));
        address log = create(RECEIPT_LOG, abi.encode(future));
        arguments = abi.encode(manager, log, verifier, ADMIN_DELAY, EPOCH_LIFETIME);
        IEnclaveRegistry enclaves = IEnclaveRegistry(create(ENCLAVE_REGISTRY, arguments));
        _refusedWiring(future, nodeRegistry, enclaves, address(nodeRegistry));
        _refusedWiring(future, nodes, enclaveRegistry, address(enclaveRegistry));
        _refusedWiring(address(settlement), nodeRegistry, enclaveRegistry, address(nodeRegistry));
        reverts(IObjectiveFaults.ZeroAddress.selector);
        this.construct(future, nodes, enclaves, address(0));
        create(OBJECTIVE_FAULTS, abi.encode(future, nodes, enclaves, BENEFICIARY));
    }

    function test_TwoCompletionsOfOneAwardCostTheBond() external {
        Completion memory first = completion(NODE, AWARD);
        Completion memory second = completion(NODE, AWARD);
        second.outputTokens += 1;
        (bytes memory one, bytes memory two) = (signed(NODE_KEY, first), signed(NODE_KEY, second));
        (bytes32 firstDigest, bytes32 secondDigest) = (digestOf(first), digestOf(second));
        vm.expectEmit(address(faults));
        emit IObjectiveFaults.CompletionsReported(
            NODE,
            AWARD,
            firstDigest,
            secondDigest,
            REPORTER,
            BOND,
            BOND_REWARD
        );
        vm.prank(STRANGER);
        faults.reportCompletions(first, one, second, two, REPORTER);
        eq(bondOf(NODE), 0);
        eq(token.balanceOf(REPORTER), BOND_REWARD);
        eq(token.balanceOf(address(faults)), BOND - BOND_REWARD);
        eq(reserveOf(logId), RESERVE); // the log did nothing wrong
        check(faults.isReported(_completionsFault(NODE, AWARD)));
    }

    function test_TwoRootsAtOneSizeCostTheReserve() external {
        Checkpoint memory first = checkpoint(logId, 1, 7, "one root");
        Checkpoint memory second = checkpoint(logId, 1, 7, "another root");
        (bytes memory one, bytes memory two) = (signed(ENCLAVE_KEY, first), signed(ENCLAVE_KEY, second));
        vm.expectEmit(address(faults));
        emit IObjectiveFaults.CheckpointsReported(
            logId,
            7,
            "one root",
            "another root",
            REPORTER,
            RESERVE,
            RESERVE_REWARD
        );
        vm.prank(STRANGER);
        faults.reportCheckpoints(first, one, second, two, REPORTER);
        eq(reserveOf(logId), 0);
        eq(token.balanceOf(REPORTER), RESERVE_REWARD);
        eq(token.balanceOf(address(faults)), RESERVE - RESERVE_REWARD);
        eq(bondOf(NODE), BOND);
        check(faults.isReported(_checkpointsFault(7)));
    }

    function test_AWrongTotalCostsTheReserve() external {
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        bytes memory signature_ = signed(ENCLAVE_KEY, wrong);
        bytes32 digest = digestOf(wrong);
        vm.expectEmit(address(faults));
        emit IObjectiveFaults.ReceiptReported(logId, digest, 301, 300, REPORTER, RESERVE, RESERVE_REWARD);
        vm.prank(STRANGER);
        faults.reportReceipt(wrong, signature_, REPORTER);
        eq(reserveOf(logId), 0);
        eq(token.balanceOf(REPORTER), RESERVE_REWARD);
        check(faults.isReported(_receiptFault(digest)));
    }

    function test_ASumBeyondTheTotalsWidthIsNotTakenModulo() external {
        uint96[] memory amounts = amountsOf(type(uint96).max, type(uint96).max);
        Receipt memory wrong = receipt(type(uint96).max - 1, amounts); // the sum modulo 2⁹⁶
        bytes memory signature_ = signed(ENCLAVE_KEY, wrong);
        bytes32 digest = digestOf(wrong);
        vm.expectEmit(address(faults));
        emit IObjectiveFaults.ReceiptReported(
            logId,
            digest,
            type(uint96).max - 1,
            2 * uint256(type(uint96).max),
            REPORTER,
            RESERVE,
            RESERVE_REWARD
        );
        faults.reportReceipt(wrong, signature_, REPORTER);
    }

    function test_MoneyOfOthersIsNotTouched() external {
        address payer = address(0xa000);
        depositAndAssign(payer, 400);
        settle(nextBatch(row(payer, 100), row(NODE, 90), 10));
        bytes32 otherLog = openLog(OPERATOR);
        token.mint(OPERATOR, 50);
        vm.startPrank(OPERATOR);
        token.approve(address(settlement), 50);
        settlement.fundReserve(otherLog, 50);
        vm.stopPrank();
        reportTwoRoots(7);
        reportTwoCompletions(AWARD);
        eq(balanceOf(payer), 300);
        eq(creditOf(NODE), 90);
        eq(settlement.logStateOf(logId).fees, 10);
        eq(reserveOf(otherLog), 50);
    }

    function test_AFaultCountsOnce() external {
        reportTwoCompletions(AWARD);
        bond(NODE, 500);
        bytes memory again = abi.encodeWithSelector(
            IObjectiveFaults.AlreadyReported.selector,
            _completionsFault(NODE, AWARD)
        );
        Completion memory third = completion(NODE, AWARD);
        third.auditCommitment = "a third one";
        bytes memory one = signed(NODE_KEY, completion(NODE, AWARD));
        bytes memory three = signed(NODE_KEY, third);
        reverts(again); // also with other evidence, also the other way round
        faults.reportCompletions(third, three, completion(NODE, AWARD), one, REPORTER);
        eq(bondOf(NODE), 500);

        reportTwoRoots(7);
        fundReserve(500);
        Checkpoint memory first = checkpoint(logId, 1, 7, "one root");
        Checkpoint memory second = checkpoint(logId, 1, 7, "a third root");
        (bytes memory a, bytes memory b) = (signed(ENCLAVE_KEY, first), signed(ENCLAVE_KEY, second));
        reverts(abi.encodeWithSelector(IObjectiveFaults.AlreadyReported.selector, _checkpointsFault(7)));
        faults.reportCheckpoints(second, b, first, a, REPORTER);
        eq(reserveOf(logId), 500);
    }

    function test_AReceiptIsReportedOnce() external {
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        bytes memory signature_ = signed(ENCLAVE_KEY, wrong);
        bytes32 digest = digestOf(wrong);
        faults.reportReceipt(wrong, signature_, REPORTER);
        fundReserve(500);
        signature_ = signedAnew(ENCLAVE_KEY, digest); // of the same receipt
        reverts(abi.encodeWithSelector(IObjectiveFaults.AlreadyReported.selector, _receiptFault(digest)));
        faults.reportReceipt(wrong, signature_, REPORTER);
        wrong.head.closedMs = 1; // another receipt
        faults.reportReceipt(wrong, signed(ENCLAVE_KEY, wrong), REPORTER);
        eq(reserveOf(logId), 0);
    }

    function test_AnotherAwardOrSizeIsAnotherFault() external {
        reportTwoCompletions(AWARD);
        bond(NODE, 500);
        reportTwoCompletions("another award");
        eq(bondOf(NODE), 0);
        reportTwoRoots(7);
        fundReserve(500);
        reportTwoRoots(8);
        eq(reserveOf(logId), 0);
    }

    function test_AnotherNodesFaultDoesNotUseUpThisOnes() external {
        address other = vm.addr(0xbad);
        Completion memory second = completion(other, AWARD);
        second.outputTokens += 1;
        report(completion(other, AWARD), second, 0xbad);
        eq(bondOf(NODE), BOND);
        reportTwoCompletions(AWARD);
        eq(bondOf(NODE), 0);
    }

    function test_WithNothingToTakeAFaultIsStillRecorded() external {
        address other = vm.addr(0xbad); // not registered, never bonded
        Completion memory first = completion(other, AWARD);
        Completion memory second = completion(other, AWARD);
        second.outputTokens += 1;
        (bytes memory one, bytes memory two) = (signed(0xbad, first), signed(0xbad, second));
        (bytes32 firstDigest, bytes32 secondDigest) = (digestOf(first), digestOf(second));
        vm.expectEmit(address(faults));
        emit IObjectiveFaults.CompletionsReported(other, AWARD, firstDigest, secondDigest, REPORTER, 0, 0);
        faults.reportCompletions(first, one, second, two, REPORTER);
        eq(token.balanceOf(REPORTER), 0);
        registerKey(other, 1);
        bond(other, 500);
        reverts(
            abi.encodeWithSelector(IObjectiveFaults.AlreadyReported.selector, _completionsFault(other, AWARD))
        );
        faults.reportCompletions(first, one, second, two, REPORTER);
        eq(bondOf(other), 500);
    }

    function test_ABondAnswersForWhatTheKeySignedBefore() external {
        address other = vm.addr(0xbad);
        Completion memory second = completion(other, AWARD);
        second.outputTokens += 1;
        (bytes memory one, bytes memory two) = (
            signed(0xbad, completion(other, AWARD)),
            signed(0xbad, second)
        );
        vm.warp(block.timestamp + 1 days);
        registerKey(other, 1);
        bond(other, 500);
        faults.reportCompletions(completion(other, AWARD), one, second, two, REPORTER);
        eq(bondOf(other), 0);
    }

    function test_NoDelayIsAnEscape() external {
        vm.prank(NODE);
        nodeRegistry.requestUnbonding(NODE);
        vm.prank(OPERATOR);
        settlement.requestReserveWithdrawal(logId, RESERVE);
        vm.warp(block.timestamp + UNBONDING_DELAY);
        reportTwoCompletions(AWARD);
        reportTwoRoots(7);
        vm.startPrank(OPERATOR);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.withdrawReserve(logId, OPERATOR);
        eq(bondOf(NODE), 0);
        eq(reserveOf(logId), 0);
    }

    /// @dev Reporting oneself, to be faster than others or than a delay, saves the share and no more.
    function test_ACulpritThatReportsItselfLosesTheRest() external {
        Completion memory second = completion(NODE, AWARD);
        second.outputTokens += 1;
        (bytes memory one, bytes memory two) = (
            signed(NODE_KEY, completion(NODE, AWARD)),
            signed(NODE_KEY, second)
        );
        vm.prank(NODE);
        faults.reportCompletions(completion(NODE, AWARD), one, second, two, NODE);
        eq(token.balanceOf(NODE), BOND_REWARD);
        faults.sweep();
        eq(token.balanceOf(BENEFICIARY), BOND - BOND_REWARD);
    }

    function test_ACopiedReportComesTooLateForTheOther() external {
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        bytes memory signature_ = signed(ENCLAVE_KEY, wrong);
        bytes32 fault = _receiptFault(digestOf(wrong));
        vm.prank(STRANGER);
        faults.reportReceipt(wrong, signature_, STRANGER); // read in the mempool
        reverts(abi.encodeWithSelector(IObjectiveFaults.AlreadyReported.selector, fault));
        faults.reportReceipt(wrong, signature_, REPORTER);
        eq(token.balanceOf(STRANGER), RESERVE_REWARD);
        eq(token.balanceOf(REPORTER), 0);
        eq(reserveOf(logId), 0); // punished all the same
    }

    function test_TheShareNeedsAnAddress() external {
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        bytes memory signature_ = signed(ENCLAVE_KEY, wrong);
        reverts(IObjectiveFaults.ZeroAddress.selector);
        faults.reportReceipt(wrong, signature_, address(0));
        check(!faults.isReported(_receiptFault(digestOf(wrong))));
        eq(reserveOf(logId), RESERVE);
    }

    function test_AnyoneSweepsToTheBeneficiary() external {
        reportTwoCompletions(AWARD);
        reportTwoRoots(7);
        uint256 rest = BOND - BOND_REWARD + RESERVE - RESERVE_REWARD;
        vm.expectEmit(address(faults));
        emit IObjectiveFaults.Swept(BENEFICIARY, rest);
        vm.prank(STRANGER);
        eq(faults.sweep(), rest);
        eq(token.balanceOf(BENEFICIARY), rest);
        eq(token.balanceOf(address(faults)), 0);
    }

    function test_APayeeThatTheTokenBlocksHoldsUpNobodyElse() external {
        BlockingToken blocking = new BlockingToken();
        deploy(IMintable(address(blocking)), EVERYTHING_PPM);
        prepare();
        blocking.setBlocked(BENEFICIARY, true);
        reportTwoRoots(7);
        eq(token.balanceOf(REPORTER), RESERVE_REWARD);
        blocking.setBlocked(REPORTER, true);
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        bytes memory signature_ = signed(ENCLAVE_KEY, wrong);
        fundReserve(500);
        reverts(abi.encodeWithSelector(BlockingToken.Blocked.selector, REPORTER));
        faults.reportReceipt(wrong, signature_, REPORTER);
        faults.reportReceipt(wrong, signature_, STRANGER); // not used up by the failure
        eq(token.balanceOf(STRANGER), 50);
    }

    function test_AReenteringTokenCanNotSweepTheShare() external {
        ReenteringToken reentering = new ReenteringToken();
        deploy(IMintable(address(reentering)), EVERYTHING_PPM);
        prepare();
        bytes memory callback = abi.encodeCall(IObjectiveFaults.sweep, ());
        bytes memory refusal = abi.encodeWithSelector(
            ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector
        );
        reentering.arm(address(faults), callback);
        reportTwoRoots(7);
        check(!reentering.succeeded());
        eq(keccak256(reentering.returned()), keccak256(refusal));
        reentering.arm(address(faults), callback);
        reportTwoCompletions(AWARD);
        eq(keccak256(reentering.returned()), keccak256(refusal));
        reentering.arm(address(faults), callback);
        Receipt memory wrong = receipt(301, amountsOf(100, 200));
        fundReserve(500); // the callback strikes here; what it sweeps is the beneficiary's anyway
        reentering.arm(address(faults), callback);
        faults.reportReceipt(wrong, signed(ENCLAVE_KEY, wrong), REPORTER);
        eq(keccak256(reentering.returned()), keccak256(refusal));
        eq(token.balanceOf(REPORTER), RESERVE_REWARD + BOND_REWARD + 50);
    }

    function testFuzz_WhatIsSlashedIsSharedToTheLastUnit(uint96 amount) external {
        amount = uint96(bound(amount, 1, type(uint96).max - BOND));
        bond(NODE, amount);
        reportTwoCompletions(AWARD);
        uint256 slashed = uint256(amount) + BOND;
        eq(token.balanceOf(REPORTER), slashed / 10);
        eq(faults.sweep(), slashed - slashed / 10);
        eq(token.balanceOf(address(nodeRegistry)), 0);
    }

    function construct(
        address settlement_,
        INodeRegistry nodes,
        IEnclaveRegistry enclaves,
        address beneficiary
    ) external {
        create(OBJECTIVE_FAULTS, abi.encode(settlement_, nodes, enclaves, beneficiary));
    }

    function _refusedWiring(
        address settlement_,
        INodeRegistry nodes,
        IEnclaveRegistry enclaves,
        address target
    ) private {
        reverts(abi.encodeWithSelector(IObjectiveFaults.WrongWiring.selector, target));
        this.construct(settlement_, nodes, enclaves, BENEFICIARY);
    }

    function _completionsFault(address node, bytes32 award) private pure returns (bytes32) {
        return keccak256(abi.encode(IObjectiveFaults.Kind.Completions, node, award));
    }

    function _checkpointsFault(uint64 size) private view returns (bytes32) {
        return keccak256(abi.encode(IObjectiveFaults.Kind.Checkpoints, logId, size));
    }

    function _receiptFault(bytes32 digest) private pure returns (bytes32) {
        return keccak256(abi.encode(IObjectiveFaults.Kind.Receipt, digest));
    }
}
