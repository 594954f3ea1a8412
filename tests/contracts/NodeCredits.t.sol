// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeCredits} from "../../contracts/interfaces/INodeCredits.sol";
import {IMintable} from "./support/IMintable.sol";
import {Network} from "./support/Network.sol";
import {BlockingToken, ReenteringToken} from "./support/Tokens.sol";

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @dev Credit, withdrawal by the node, payout by anyone.
contract NodeCreditsTest is Network {
    address private constant ANNA = address(0xa000);

    address private node1;
    address private wallet1;
    address private node2;
    address private wallet2;

    function setUp() external {
        deploy();
        _fill();
    }

    function test_ANodeWithdrawsToItsPayoutWallet() external {
        vm.expectEmit(address(settlement));
        emit INodeCredits.CreditPaid(node1, wallet1, 300);
        vm.prank(node1);
        eq(settlement.withdrawCredit(), 300);
        eq(token.balanceOf(wallet1), 300);
        eq(creditOf(node1), 0);
    }

    function test_LifetimeStaysAfterWithdrawal() external {
        vm.prank(node1);
        settlement.withdrawCredit();
        settle(nextBatch(row(ANNA, 5), row(node1, 5), 0));
        (uint128 credit, uint128 lifetime) = settlement.creditOf(node1);
        eq(credit, 5);
        eq(lifetime, 305);
    }

    function test_WithoutCreditOrRegistrationThereIsNothingToWithdraw() external {
        vm.prank(node1);
        settlement.withdrawCredit();
        reverts(abi.encodeWithSelector(INodeCredits.NoCredit.selector, node1));
        vm.prank(node1);
        settlement.withdrawCredit();
        settle(nextBatch(row(ANNA, 5), row(STRANGER, 5), 0));
        reverts(abi.encodeWithSelector(INodeCredits.NodeNotRegistered.selector, STRANGER));
        vm.prank(STRANGER);
        settlement.withdrawCredit();
    }

    function test_AnyoneMayPayOutManyNodes() external {
        settle(nextBatch(row(ANNA, 5), row(STRANGER, 5), 0)); // a credit without registration stays
        vm.expectEmit(address(settlement));
        emit INodeCredits.CreditPaid(node1, wallet1, 300);
        vm.expectEmit(address(settlement));
        emit INodeCredits.CreditPaid(node2, wallet2, 200);
        vm.prank(ANNA);
        settlement.payout(_list(STRANGER, node1, node2));
        eq(token.balanceOf(wallet1), 300);
        eq(token.balanceOf(wallet2), 200);
        eq(creditOf(STRANGER), 5);
        settlement.payout(_list(node1, node1, node2)); // nothing left: nothing happens
        eq(token.balanceOf(wallet1), 300);
    }

    function test_ANodeNamedTwiceIsPaidOnce() external {
        settlement.payout(_list(node1, node1, node1));
        eq(token.balanceOf(wallet1), 300);
    }

    function test_ARefusedWalletBlocksNobodyElse() external {
        BlockingToken blocking = new BlockingToken();
        deploy(IMintable(address(blocking)), EVERYTHING_PPM);
        _fill();
        blocking.setBlocked(wallet1, true);
        vm.expectEmit(address(settlement));
        emit INodeCredits.PayoutFailed(node1, wallet1, 300);
        settlement.payout(_list(node1, node2, node2));
        eq(creditOf(node1), 300);
        eq(token.balanceOf(wallet2), 200);
        reverts(abi.encodeWithSelector(BlockingToken.Blocked.selector, wallet1));
        vm.prank(node1);
        settlement.withdrawCredit();
        blocking.setBlocked(wallet1, false);
        settlement.payout(_list(node1, node1, node1));
        eq(token.balanceOf(wallet1), 300);
    }

    function test_AReenteringTokenGetsNothingTwice() external {
        ReenteringToken reentering = new ReenteringToken();
        deploy(IMintable(address(reentering)), EVERYTHING_PPM);
        _fill();
        address[] memory nodes = _list(node1, node2, node2);
        reentering.arm(address(settlement), abi.encodeCall(INodeCredits.payout, (nodes)));
        settlement.payout(nodes);
        check(!reentering.succeeded());
        eq(
            keccak256(reentering.returned()),
            keccak256(abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector))
        );
        eq(token.balanceOf(wallet1), 300);
        eq(token.balanceOf(wallet2), 200);
    }

    function test_PayoutsGoOnDuringAPause() external {
        vm.prank(GUARDIAN);
        settlement.pause(1 hours);
        settlement.payout(_list(node1, node1, node1));
        eq(token.balanceOf(wallet1), 300);
    }

    /// @dev 300 and 200 of credit for two registered nodes.
    function _fill() private {
        delete leaves;
        delete anchor;
        (node1, wallet1) = registerNode(1);
        (node2, wallet2) = registerNode(2);
        depositAndAssign(ANNA, 1_000);
        settle(nextBatch(row(ANNA, 500), bytes.concat(row(node1, 300), row(node2, 200)), 0));
    }

    function _list(address a, address b, address c) private pure returns (address[] memory nodes) {
        nodes = new address[](3);
        (nodes[0], nodes[1], nodes[2]) = (a, b, c);
    }
}
