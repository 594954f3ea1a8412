// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogFunds} from "../../contracts/interfaces/ILogFunds.sol";
import {ISettlementBase} from "../../contracts/interfaces/ISettlementBase.sol";
import {Batch} from "../../contracts/libraries/TypedData.sol";
import {IMintable} from "./support/IMintable.sol";
import {Network} from "./support/Network.sol";

import {IAccessManaged} from "@openzeppelin/contracts/access/manager/IAccessManaged.sol";

/// @dev Reserve, fees and debit limiter.
contract LogFundsTest is Network {
    address private constant ANNA = address(0xa000);
    address private constant BERT = address(0xb000);
    address private constant NODE = address(0x1001);

    function setUp() external {
        deploy(IMintable(create(TEST_TOKEN, "")), 200_000); // 20 % of the deposits per window
        depositAndAssign(ANNA, 1_000);
    }

    function test_AnyoneMayFundTheReserveOfAnOpenedLog() external {
        token.mint(BERT, 50);
        vm.startPrank(BERT);
        token.approve(address(settlement), 50);
        vm.expectEmit(address(settlement));
        emit ILogFunds.ReserveFunded(logId, BERT, 50);
        settlement.fundReserve(logId, 50);
        eq(settlement.logStateOf(logId).reserve, 50);
        reverts(abi.encodeWithSelector(ISettlementBase.UnknownLog.selector, bytes32("nowhere")));
        settlement.fundReserve("nowhere", 1);
        reverts(ISettlementBase.ZeroAmount.selector);
        settlement.fundReserve(logId, 0);
    }

    function test_OnlyTheOperatorTouchesReserveAndFees() external by(STRANGER) {
        bytes memory notOperator = abi.encodeWithSelector(ILogFunds.NotOperator.selector, logId, STRANGER);
        reverts(notOperator);
        settlement.requestReserveWithdrawal(logId, 1);
        reverts(notOperator);
        settlement.withdrawReserve(logId, STRANGER);
        reverts(notOperator);
        settlement.withdrawFees(logId, STRANGER);
    }

    function test_TheReserveLeavesAfterTheDelay() external {
        fundReserve(50);
        vm.startPrank(OPERATOR);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.withdrawReserve(logId, BERT);
        uint40 availableAt = uint40(block.timestamp) + WITHDRAWAL_DELAY;
        vm.expectEmit(address(settlement));
        emit ILogFunds.ReserveWithdrawalRequested(logId, 80, availableAt);
        settlement.requestReserveWithdrawal(logId, 80);
        (uint96 requested, uint40 from) = settlement.reserveRequestOf(logId);
        eq(requested, 80);
        eq(from, availableAt);
        vm.warp(availableAt - 1);
        reverts(abi.encodeWithSelector(ISettlementBase.TooEarly.selector, availableAt, availableAt - 1));
        settlement.withdrawReserve(logId, BERT);
        vm.warp(availableAt);
        reverts(ISettlementBase.ZeroAddress.selector);
        settlement.withdrawReserve(logId, address(0));
        vm.expectEmit(address(settlement));
        emit ILogFunds.ReserveWithdrawn(logId, BERT, 50);
        eq(settlement.withdrawReserve(logId, BERT), 50); // no more than there is
        eq(token.balanceOf(BERT), 50);
        eq(settlement.logStateOf(logId).reserve, 0);
    }

    function test_AReserveWithdrawalCanBeCancelled() external by(OPERATOR) {
        settlement.requestReserveWithdrawal(logId, 80);
        settlement.requestReserveWithdrawal(logId, 0);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.withdrawReserve(logId, BERT);
    }

    function test_TheFaultsContractTakesTheWholeReserve() external {
        fundReserve(50);
        vm.expectEmit(address(settlement));
        emit ILogFunds.ReserveSlashed(logId, 50);
        vm.prank(address(faults));
        eq(settlement.slashReserve(logId), 50);
        eq(token.balanceOf(address(faults)), 50);
        eq(settlement.logStateOf(logId).reserve, 0);
        eq(settlement.logStateOf(logId).assigned, 1_000); // nobody else's money
        vm.prank(address(faults));
        eq(settlement.slashReserve(logId), 0);
        eq(token.balanceOf(address(faults)), 50);
    }

    function test_AWaitingWithdrawalDoesNotSaveTheReserve() external {
        fundReserve(50);
        vm.prank(OPERATOR);
        settlement.requestReserveWithdrawal(logId, 50);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        vm.prank(address(faults));
        eq(settlement.slashReserve(logId), 50);
        fundReserve(7); // what comes later is not ready to leave
        reverts(ISettlementBase.NothingRequested.selector);
        vm.prank(OPERATOR);
        settlement.withdrawReserve(logId, OPERATOR);
    }

    function test_NobodyElseSlashesAReserve() external {
        fundReserve(50);
        reverts(abi.encodeWithSelector(ILogFunds.NotFaults.selector, OPERATOR));
        vm.prank(OPERATOR);
        settlement.slashReserve(logId);
    }

    function test_TheOperatorWithdrawsItsFees() external {
        settle(nextBatch(row(ANNA, 100), row(NODE, 90), 10));
        vm.startPrank(OPERATOR);
        reverts(ISettlementBase.ZeroAddress.selector);
        settlement.withdrawFees(logId, address(0));
        vm.expectEmit(address(settlement));
        emit ILogFunds.FeesWithdrawn(logId, BERT, 10);
        eq(settlement.withdrawFees(logId, BERT), 10);
        eq(token.balanceOf(BERT), 10);
        reverts(ISettlementBase.ZeroAmount.selector);
        settlement.withdrawFees(logId, BERT);
    }

    function test_OneBatchTakesNoMoreThanTheShare() external {
        eq(settlement.debitableNow(logId), 200);
        settleReverts(
            nextBatch(row(ANNA, 201), row(NODE, 201), 0),
            abi.encodeWithSelector(ILogFunds.DebitLimitExceeded.selector, logId, 201, 200)
        );
        settle(nextBatch(row(ANNA, 200), row(NODE, 200), 0));
        eq(settlement.logStateOf(logId).drainedAt, block.timestamp + 1 days);
        eq(settlement.debitableNow(logId), 0);
        settleReverts(
            nextBatch(row(ANNA, 1), row(NODE, 1), 0),
            abi.encodeWithSelector(ILogFunds.DebitLimitExceeded.selector, logId, 1, 0)
        );
    }

    function test_SharesOfWhatIsThereAddUp() external {
        settle(nextBatch(row(ANNA, 150), row(NODE, 150), 0)); // three quarters of a fifth of 1,000
        eq(settlement.logStateOf(logId).drainedAt, block.timestamp + 18 hours);
        eq(settlement.debitableNow(logId), 42); // a quarter of a fifth of 850
        settle(nextBatch(row(ANNA, 42), row(NODE, 42), 0));
        eq(settlement.debitableNow(logId), 0);
    }

    function test_TheLimiterDrainsEvenly() external {
        settle(nextBatch(row(ANNA, 200), row(NODE, 200), 0));
        vm.warp(block.timestamp + 12 hours);
        eq(settlement.debitableNow(logId), 80); // half of a fifth of 800
        settle(nextBatch(row(ANNA, 80), row(NODE, 80), 0));
        eq(settlement.debitableNow(logId), 0);
        vm.warp(block.timestamp + 1 days);
        eq(settlement.debitableNow(logId), 144); // empty again, and no more than a fifth of 720
        vm.warp(block.timestamp + 10 days);
        eq(settlement.debitableNow(logId), 144);
    }

    function test_EvenOneUnitFillsASecond() external {
        settle(nextBatch(row(ANNA, 1), row(NODE, 1), 0));
        uint256 drainedAt = settlement.logStateOf(logId).drainedAt;
        eq(drainedAt, block.timestamp + 432); // 1 of 200 in a day
        depositAndAssign(BERT, 1e18);
        settle(nextBatch(row(ANNA, 1), row(NODE, 1), 0));
        eq(settlement.logStateOf(logId).drainedAt, drainedAt + 1); // rounded up
    }

    function test_ABatchWithoutDebitsNeedsNoRoom() external {
        settle(nextBatch(row(ANNA, 200), row(NODE, 200), 0));
        settle(nextBatch("", "", 0));
        vm.startPrank(ANNA);
        settlement.requestWithdrawal(800);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        settlement.withdraw(ANNA);
        vm.stopPrank();
        settle(nextBatch("", "", 0)); // from nothing nothing is taken
    }

    /// @dev Half a second before and after no border: the shares of any times add up to less than the bound.
    function testFuzz_OverAnyTimeNoMoreGoesThanTheShareAndWhatDrained(
        uint16[8] memory pauses,
        uint96[8] memory amounts
    ) external {
        uint256 start = block.timestamp;
        for (uint256 i = 0; i < 8; ++i) {
            vm.warp(block.timestamp + uint256(pauses[i]));
            uint256 most = settlement.debitableNow(logId);
            if (most == 0) continue;
            uint96 amount = uint96(bound(amounts[i], amounts[i] % 2 == 0 ? most : 1, most));
            settle(nextBatch(row(ANNA, amount), row(NODE, amount), 0));
        }
        uint256 taken = 1_000 - settlement.logStateOf(logId).assigned;
        uint256 elapsed = block.timestamp - start;
        check(taken * 1 days <= 200 * (1 days + elapsed));
    }

    function test_AtAHundredPercentThereIsNoLimit() external {
        vm.prank(ADMIN);
        settlement.setDebitLimit(1_000_000);
        vm.warp(block.timestamp + ADMIN_DELAY);
        settle(nextBatch(row(ANNA, 600), row(NODE, 600), 0));
        eq(settlement.debitableNow(logId), 400);
        settle(nextBatch(row(ANNA, 400), row(NODE, 400), 0));
        eq(settlement.debitableNow(logId), 0);
    }

    function test_NewDepositsRaiseTheLimitAtOnceAndWithdrawalsLowerIt() external {
        vm.prank(ANNA);
        settlement.requestWithdrawal(500);
        depositAndAssign(BERT, 500);
        eq(settlement.debitableNow(logId), 300);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        vm.prank(ANNA);
        settlement.withdraw(ANNA);
        eq(settlement.debitableNow(logId), 200);
    }

    function test_WhatTheReservePaysDoesNotCount() external {
        fundReserve(1_000);
        settle(nextBatch(row(BERT, 900), row(NODE, 900), 0));
        eq(settlement.logStateOf(logId).drainedAt, 0);
        eq(settlement.debitableNow(logId), 200);
    }

    function test_LoweringTheLimitWorksAtOnce() external by(ADMIN) {
        vm.expectEmit(address(settlement));
        emit ILogFunds.DebitLimitSet(100_000, uint40(block.timestamp));
        settlement.setDebitLimit(100_000);
        eq(settlement.debitLimit(), 100_000);
        eq(settlement.debitableNow(logId), 100);
    }

    function test_RaisingTheLimitTakesTheAdminDelay() external by(ADMIN) {
        uint40 effectiveAt = uint40(block.timestamp) + ADMIN_DELAY;
        vm.expectEmit(address(settlement));
        emit ILogFunds.DebitLimitSet(500_000, effectiveAt);
        settlement.setDebitLimit(500_000);
        vm.warp(effectiveAt - 1);
        eq(settlement.debitLimit(), 200_000);
        _eqPendingLimit(500_000, effectiveAt);
        vm.warp(effectiveAt);
        eq(settlement.debitLimit(), 500_000);
        _eqPendingLimit(0, 0);
        settlement.setDebitLimit(600_000); // the matured one stays in force while this one waits
        eq(settlement.debitLimit(), 500_000);
    }

    function test_ALowerLimitReplacesAWaitingRaise() external by(ADMIN) {
        settlement.setDebitLimit(500_000);
        settlement.setDebitLimit(150_000);
        _eqPendingLimit(0, 0);
        vm.warp(block.timestamp + ADMIN_DELAY);
        eq(settlement.debitLimit(), 150_000);
    }

    function test_TheLimitIsBetweenOneAndAHundredPercent() external by(ADMIN) {
        reverts(abi.encodeWithSelector(ILogFunds.InvalidDebitLimit.selector, 9_999));
        settlement.setDebitLimit(9_999);
        reverts(abi.encodeWithSelector(ILogFunds.InvalidDebitLimit.selector, 1_000_001));
        settlement.setDebitLimit(1_000_001);
    }

    function test_OnlyAnAdministratorSetsTheLimit() external by(GUARDIAN) {
        reverts(abi.encodeWithSelector(IAccessManaged.AccessManagedUnauthorized.selector, GUARDIAN));
        settlement.setDebitLimit(100_000);
    }

    function testFuzz_ABatchPassesIffTheLimitAllows(uint96 amount) external {
        amount = uint96(bound(amount, 1, 1_000));
        Batch memory batch = nextBatch(row(ANNA, amount), row(NODE, amount), 0);
        if (amount <= 200) {
            settle(batch);
        } else {
            settleReverts(
                batch,
                abi.encodeWithSelector(ILogFunds.DebitLimitExceeded.selector, logId, amount, 200)
            );
        }
    }

    function _eqPendingLimit(uint32 limitPpm, uint40 effectiveAt) private view {
        (uint32 waiting, uint40 from) = settlement.pendingDebitLimit();
        eq(waiting, limitPpm);
        eq(from, effectiveAt);
    }
}
