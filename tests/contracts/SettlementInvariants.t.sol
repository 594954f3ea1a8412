// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Outcome, SettlementActions} from "./support/SettlementActions.sol";
import {Test} from "./support/Test.sol";

/// @dev Stands here because the runner fuzzes only what a test file deploys.
contract SettlementHandler is SettlementActions {}

/// @dev What holds after any sequence of calls, debts apart: they are owed to the reserve, not held.
contract SettlementInvariantsTest is Test {
    SettlementHandler private handler;

    error NeverReached(Outcome outcome);

    function setUp() external {
        handler = new SettlementHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev To the base unit: what Settlement owes is what it holds.
    function invariant_EverythingOwedIsHeld() external view {
        eq(handler.owed(), handler.held());
        eq(handler.owed(), handler.owedBySettlement());
    }

    function invariant_EveryLedgersSumIsItsBalances() external view {
        for (uint256 i = 0; i < 3; ++i) {
            eq(handler.assignedTo(handler.logAt(i)), handler.balancesIn(handler.logAt(i)));
        }
    }

    /// @dev Counted by the handler from the rows that it sent, not from what the chain says it took.
    function invariant_APayerKeepsWhatWasNotDebited() external view {
        for (uint256 i = 0; i < handler.PARTIES(); ++i) {
            address payer = handler.payerAt(i);
            uint256 left = handler.deposited(payer) - handler.debited(payer);
            eq(handler.balancesOf(payer), left - handler.repaid(payer) - handler.withdrawn(payer));
            check(handler.withdrawableOf(payer) + handler.withdrawn(payer) <= left);
        }
    }

    function invariant_LifetimeCreditIsCreditAndWhatWasPaid() external view {
        for (uint256 i = 0; i < handler.PARTIES(); ++i) {
            address node = handler.nodeAt(i);
            (uint128 credit, uint128 lifetime) = handler.creditAndLifetime(node);
            eq(lifetime, credit + handler.paidTo(node));
        }
    }

    /// @dev The handler also tries to settle leaves again and to rewrite them, and compares the refusals.
    function invariant_EveryLeafOfTheLogWasSettledOnce() external view {
        eq(handler.leavesSettled(), handler.anchoredSize());
        check(handler.lastAnchorStands());
    }

    /// @dev The invariants above say something only of what the handler gets to. Arguments are drawn here
    /// as the runner draws them, but always the same.
    function test_TheHandlerReachesEveryOutcome() external {
        for (uint256 i = 0; i < 1_500; ++i) {
            _call(uint256(keccak256(abi.encode("step", i))));
        }
        for (uint256 i = 0; i <= uint256(type(Outcome).max); ++i) {
            if (handler.times(Outcome(i)) == 0) revert NeverReached(Outcome(i));
        }
        this.invariant_EverythingOwedIsHeld();
        this.invariant_EveryLedgersSumIsItsBalances();
        this.invariant_APayerKeepsWhatWasNotDebited();
        this.invariant_LifetimeCreditIsCreditAndWhatWasPaid();
        this.invariant_EveryLeafOfTheLogWasSettledOnce();
    }

    function _call(uint256 seed) private {
        uint256 action = seed % 17;
        (uint96 a, uint96 b) = (uint96(seed >> 32), uint96(seed >> 128));
        (uint256 who, uint32 time) = (seed >> 8, uint32(seed >> 64));
        if (action == 0) handler.deposit(who, a);
        else if (action == 1) handler.assign(who, b % 2 == 0);
        else if (action == 2) handler.requestMove(who, b);
        else if (action == 3) handler.completeMove(who);
        else if (action == 4) handler.requestWithdrawal(who, a);
        else if (action == 5) handler.withdraw(who);
        else if (action == 6) handler.fund(a);
        else if (action == 7) handler.withdrawReserve(a);
        else if (action == 8) handler.withdrawFees();
        else if (action == 9) handler.settleAgain(who);
        else if (action == 10) handler.payout(who);
        else if (action == 11) handler.withdrawCredit(who);
        else if (action == 12) handler.blockWallet(who, b % 2 == 0);
        else if (action == 13) handler.pause(time);
        else if (action == 14) handler.revokeEpoch(a, b % 2 == 0);
        else if (action == 15) handler.passTime(time);
        else handler.settleBatch(a, b, who, a ^ b, b >> 3);
    }
}
