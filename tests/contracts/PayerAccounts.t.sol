// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogFunds} from "../../contracts/interfaces/ILogFunds.sol";
import {IPayerAccounts} from "../../contracts/interfaces/IPayerAccounts.sol";
import {ISettlementBase} from "../../contracts/interfaces/ISettlementBase.sol";
import {IMintable} from "./support/IMintable.sol";
import {Network} from "./support/Network.sol";
import {FeeToken} from "./support/Tokens.sol";

/// @dev Deposits, assignment, moves, grant epochs and withdrawals.
contract PayerAccountsTest is Network {
    uint256 private constant ANNA_KEY = 0xa77a;
    address private immutable ANNA = vm.addr(ANNA_KEY);
    address private constant BERT = address(0xb000);
    address private constant NODE = address(0x1001);
    bytes32 private constant PERMIT_TYPEHASH = keccak256(
        "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
    );

    bytes32 private otherLog;

    function setUp() external {
        deploy();
        otherLog = openLog(OPERATOR);
    }

    function test_ADepositWaitsUnassigned() external {
        token.mint(ANNA, 70);
        vm.startPrank(ANNA);
        token.approve(address(settlement), 70);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Deposited(ANNA, 0, ANNA, 70, 0);
        settlement.deposit(70);
        eq(settlement.accountOf(0, ANNA).balance, 70);
        eq(settlement.payerOf(ANNA).logId, bytes32(0));
    }

    function test_ADepositForSomebodyElseIsTheirs() external {
        token.mint(BERT, 70);
        vm.startPrank(BERT);
        token.approve(address(settlement), 70);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Deposited(ANNA, 0, BERT, 70, 0);
        settlement.depositFor(ANNA, 70);
        eq(settlement.accountOf(0, ANNA).balance, 70);
        eq(settlement.accountOf(0, BERT).balance, 0);
    }

    function test_ADepositNeedsAnAmountAndAPayer() external {
        reverts(ISettlementBase.ZeroAmount.selector);
        settlement.deposit(0);
        reverts(ISettlementBase.ZeroAddress.selector);
        settlement.depositFor(address(0), 1);
    }

    function test_ATokenThatTakesAFeeIsRefused() external {
        FeeToken fees = new FeeToken();
        deploy(IMintable(address(fees)), EVERYTHING_PPM);
        fees.mint(ANNA, 70);
        vm.startPrank(ANNA);
        fees.approve(address(settlement), 70);
        reverts(abi.encodeWithSelector(ISettlementBase.WrongAmountReceived.selector, 70, 69));
        settlement.deposit(70);
    }

    function test_APermitReplacesTheApproval() external {
        token.mint(ANNA, 70);
        (uint8 v, bytes32 r, bytes32 s) = _permit(70);
        vm.prank(ANNA);
        settlement.depositWithPermit(BERT, 70, block.timestamp, v, r, s);
        eq(settlement.accountOf(0, BERT).balance, 70);
    }

    function test_AForestalledPermitDoesNotBlockTheDeposit() external {
        token.mint(ANNA, 70);
        (uint8 v, bytes32 r, bytes32 s) = _permit(70);
        _submitPermit(70, v, r, s);
        vm.prank(ANNA);
        settlement.depositWithPermit(ANNA, 70, block.timestamp, v, r, s);
        eq(settlement.accountOf(0, ANNA).balance, 70);
    }

    function test_APermitGivesNobodyElseTheMoney() external {
        token.mint(ANNA, 70);
        (uint8 v, bytes32 r, bytes32 s) = _permit(70);
        vm.prank(BERT);
        try settlement.depositWithPermit(BERT, 70, block.timestamp, v, r, s) {
            check(false);
        } catch {}
        eq(token.balanceOf(ANNA), 70);
    }

    function test_TheFirstAssignmentWorksAtOnce() external {
        deposit(ANNA, 70);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Assigned(ANNA, logId, 70, 0);
        vm.prank(ANNA);
        settlement.assign(logId);
        eq(settlement.payerOf(ANNA).logId, logId);
        eq(balanceOf(ANNA), 70);
        eq(settlement.accountOf(0, ANNA).balance, 0);
        eq(settlement.logStateOf(logId).assigned, 70);
        eq(settlement.logStateOf(0).assigned, 0);
    }

    function test_LaterDepositsGoToTheAssignedLog() external {
        depositAndAssign(ANNA, 70);
        deposit(ANNA, 5);
        eq(balanceOf(ANNA), 75);
        eq(settlement.logStateOf(logId).assigned, 75);
    }

    function test_OnlyAnOpenedLogCanBeChosen() external by(ANNA) {
        reverts(abi.encodeWithSelector(ISettlementBase.UnknownLog.selector, bytes32("nowhere")));
        settlement.assign("nowhere");
        settlement.assign(logId);
        reverts(abi.encodeWithSelector(ISettlementBase.UnknownLog.selector, bytes32("nowhere")));
        settlement.requestMove("nowhere");
    }

    function test_ASecondAssignmentIsAMove() external by(ANNA) {
        reverts(abi.encodeWithSelector(IPayerAccounts.NotAssigned.selector, ANNA));
        settlement.requestMove(otherLog);
        settlement.assign(logId);
        reverts(abi.encodeWithSelector(IPayerAccounts.AlreadyAssigned.selector, ANNA, logId));
        settlement.assign(otherLog);
    }

    function test_AMoveTakesTheDelayAndCarriesEverything() external {
        depositAndAssign(ANNA, 70);
        vm.startPrank(ANNA);
        settlement.requestWithdrawal(30);
        vm.warp(block.timestamp + 10);
        uint40 movableAt = uint40(block.timestamp) + WITHDRAWAL_DELAY;
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.MoveRequested(ANNA, logId, otherLog, movableAt);
        settlement.requestMove(otherLog);
        vm.warp(movableAt - 1);
        reverts(abi.encodeWithSelector(ISettlementBase.TooEarly.selector, movableAt, movableAt - 1));
        settlement.completeMove();
        vm.warp(movableAt);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Moved(ANNA, logId, otherLog, 70, 0);
        settlement.completeMove();
        eq(balanceOf(ANNA), 0);
        IPayerAccounts.Account memory account = settlement.accountOf(otherLog, ANNA);
        eq(account.balance, 70);
        eq(account.requested, 30);
        eq(account.availableAt, movableAt - 10);
        eq(settlement.logStateOf(logId).assigned, 0);
        eq(settlement.logStateOf(otherLog).assigned, 70);
        eq(settlement.payerOf(ANNA).logId, otherLog);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.completeMove();
    }

    function test_AMoveCanBeCancelledByNamingThePresentLog() external by(ANNA) {
        settlement.assign(logId);
        settlement.requestMove(otherLog);
        settlement.requestMove(logId);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.completeMove();
    }

    function test_AMoveToNoLogFreesThePayerForAnother() external by(ANNA) {
        settlement.assign(logId);
        settlement.requestMove(0);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        settlement.completeMove();
        settlement.assign(otherLog);
        eq(settlement.payerOf(ANNA).logId, otherLog);
    }

    function test_UntilTheMoveThePresentLogDebits() external {
        depositAndAssign(ANNA, 70);
        vm.prank(ANNA);
        settlement.requestMove(otherLog);
        settle(nextBatch(row(ANNA, 20), row(NODE, 20), 0));
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        vm.prank(ANNA);
        settlement.completeMove();
        eq(settlement.accountOf(otherLog, ANNA).balance, 50);
    }

    function test_BumpingTheGrantEpochCounts() external by(ANNA) {
        eq(settlement.payerOf(ANNA).grantEpoch, 0);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.GrantEpochBumped(ANNA, 1);
        eq(settlement.bumpGrantEpoch(), 1);
        eq(settlement.bumpGrantEpoch(), 2);
        eq(settlement.payerOf(ANNA).grantEpoch, 2);
    }

    function test_AWithdrawalTakesTheDelayAndNeedsNobody() external {
        depositAndAssign(ANNA, 70);
        vm.startPrank(ANNA);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.withdraw(BERT);
        uint40 availableAt = uint40(block.timestamp) + WITHDRAWAL_DELAY;
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.WithdrawalRequested(ANNA, logId, 30, availableAt);
        settlement.requestWithdrawal(30);
        vm.warp(availableAt - 1);
        reverts(abi.encodeWithSelector(ISettlementBase.TooEarly.selector, availableAt, availableAt - 1));
        settlement.withdraw(BERT);
        vm.warp(availableAt);
        reverts(ISettlementBase.ZeroAddress.selector);
        settlement.withdraw(address(0));
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Withdrawn(ANNA, logId, BERT, 30);
        eq(settlement.withdraw(BERT), 30);
        eq(token.balanceOf(BERT), 30);
        eq(balanceOf(ANNA), 40);
        eq(settlement.logStateOf(logId).assigned, 40);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.withdraw(BERT);
    }

    function test_ANewRequestRestartsTheDelayAndZeroCancels() external {
        depositAndAssign(ANNA, 70);
        vm.startPrank(ANNA);
        settlement.requestWithdrawal(30);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY - 1);
        settlement.requestWithdrawal(40);
        uint256 availableAt = block.timestamp + WITHDRAWAL_DELAY;
        vm.warp(block.timestamp + 1);
        reverts(abi.encodeWithSelector(ISettlementBase.TooEarly.selector, availableAt, block.timestamp));
        settlement.withdraw(ANNA);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.WithdrawalRequested(ANNA, logId, 0, 0);
        settlement.requestWithdrawal(0);
        vm.warp(availableAt);
        reverts(ISettlementBase.NothingRequested.selector);
        settlement.withdraw(ANNA);
    }

    function test_BatchesMayStillUseWhatIsPending() external {
        depositAndAssign(ANNA, 70);
        vm.prank(ANNA);
        settlement.requestWithdrawal(type(uint96).max);
        settle(nextBatch(row(ANNA, 50), row(NODE, 50), 0));
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        vm.prank(ANNA);
        eq(settlement.withdraw(ANNA), 20);
        eq(balanceOf(ANNA), 0);
    }

    function test_AMaturedWithdrawalCannotBePaused() external {
        depositAndAssign(ANNA, 70);
        vm.prank(ANNA);
        settlement.requestWithdrawal(70);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        vm.prank(GUARDIAN);
        settlement.pause(12 hours);
        vm.prank(ANNA);
        eq(settlement.withdraw(ANNA), 70);
    }

    function test_ADepositRepaysTheDebtFirst() external {
        fundReserve(100);
        depositAndAssign(ANNA, 70);
        settle(nextBatch(row(ANNA, 110), row(NODE, 110), 0));
        eq(settlement.debtOf(logId, ANNA), 40);
        token.mint(BERT, 100);
        vm.startPrank(BERT);
        token.approve(address(settlement), 100);
        settlement.depositFor(ANNA, 25);
        eq(settlement.debtOf(logId, ANNA), 15);
        eq(balanceOf(ANNA), 0);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Deposited(ANNA, logId, BERT, 75, 15);
        settlement.depositFor(ANNA, 75);
        eq(settlement.debtOf(logId, ANNA), 0);
        eq(balanceOf(ANNA), 60);
        ILogFunds.LogState memory log = settlement.logStateOf(logId);
        eq(log.reserve, 100);
        eq(log.assigned, 60);
    }

    function test_ComingBackToALogRepaysTheDebtThere() external {
        fundReserve(100);
        vm.prank(ANNA);
        settlement.assign(logId);
        settle(nextBatch(row(ANNA, 40), row(NODE, 40), 0));
        vm.prank(ANNA);
        settlement.requestMove(0);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        vm.prank(ANNA);
        settlement.completeMove();
        deposit(ANNA, 50);
        eq(settlement.accountOf(0, ANNA).balance, 50);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Assigned(ANNA, logId, 50, 40);
        vm.prank(ANNA);
        settlement.assign(logId);
        eq(balanceOf(ANNA), 10);
        eq(settlement.logStateOf(logId).reserve, 100);
    }

    function _permit(uint256 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 structHash = keccak256(
            abi.encode(
                PERMIT_TYPEHASH,
                ANNA,
                address(settlement),
                amount,
                token.nonces(ANNA),
                block.timestamp
            )
        );
        return vm.sign(ANNA_KEY, keccak256(bytes.concat(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
    }

    function _submitPermit(uint256 amount, uint8 v, bytes32 r, bytes32 s) private {
        (bool done, ) = address(token).call(
            abi.encodeWithSignature(
                "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
                ANNA,
                address(settlement),
                amount,
                block.timestamp,
                v,
                r,
                s
            )
        );
        check(done);
    }
}
