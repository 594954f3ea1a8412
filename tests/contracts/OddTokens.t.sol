// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeCredits} from "../../contracts/interfaces/INodeCredits.sol";
import {ISettlementBase} from "../../contracts/interfaces/ISettlementBase.sol";
import {IMintable} from "./support/IMintable.sol";
import {Network} from "./support/Network.sol";
import {FalseToken, LyingToken, RebasingToken, SilentToken} from "./support/OddTokens.sol";
import {BlockingToken, FeeToken} from "./support/Tokens.sol";

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @dev Tokens that behave otherwise than ERC-20 asks: what is refused, and what it costs whom.
contract OddTokensTest is Network {
    address private constant ANNA = address(0xa000);
    address private constant BERT = address(0xb000);

    address private node1;
    address private wallet1;
    address private node2;
    address private wallet2;

    function test_AFeeIsRefusedWhereverMoneyComesIn() external {
        _deployWith(address(new FeeToken()));
        _hold(ANNA, 70);
        bytes memory refusal = abi.encodeWithSelector(ISettlementBase.WrongAmountReceived.selector, 70, 69);
        vm.startPrank(ANNA);
        reverts(refusal);
        settlement.deposit(70);
        reverts(refusal);
        settlement.depositFor(BERT, 70);
        reverts(refusal);
        settlement.depositWithPermit(BERT, 70, 0, 0, 0, 0);
        reverts(refusal);
        settlement.fundReserve(logId, 70);
    }

    function test_ATokenThatMovesNothingIsRefused() external {
        _deployWith(address(new LyingToken()));
        _hold(ANNA, 70);
        reverts(abi.encodeWithSelector(ISettlementBase.WrongAmountReceived.selector, 70, 0));
        vm.prank(ANNA);
        settlement.deposit(70);
    }

    function test_ATokenThatReturnsNothingWorks() external {
        _deployWith(address(new SilentToken()));
        _fill();
        settlement.payout(_nodes());
        eq(token.balanceOf(wallet1), 300);
        eq(token.balanceOf(wallet2), 200);
        _requestAll(ANNA);
        vm.prank(ANNA);
        eq(settlement.withdraw(BERT), 500);
        eq(token.balanceOf(BERT), 500);
    }

    function test_ATokenThatSaysNoPullsNothing() external {
        FalseToken saysNo = new FalseToken();
        _deployWith(address(saysNo));
        _hold(ANNA, 70);
        saysNo.setRefusing(true);
        reverts(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, saysNo));
        vm.prank(ANNA);
        settlement.deposit(70);
        eq(settlement.accountOf(0, ANNA).balance, 0);
    }

    function test_WhatATokenWillNotPayStaysOwed() external {
        FalseToken saysNo = new FalseToken();
        _deployWith(address(saysNo));
        _fill();
        _requestAll(ANNA);
        saysNo.setRefusing(true);
        bytes memory failed = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, saysNo);
        reverts(failed);
        vm.prank(ANNA);
        settlement.withdraw(BERT);
        reverts(failed);
        vm.prank(node1);
        settlement.withdrawCredit();
        vm.expectEmit(address(settlement));
        emit INodeCredits.PayoutFailed(node1, wallet1, 300);
        vm.expectEmit(address(settlement));
        emit INodeCredits.PayoutFailed(node2, wallet2, 200);
        settlement.payout(_nodes());
        eq(creditOf(node1), 300);
        eq(balanceOf(ANNA), 500);
        saysNo.setRefusing(false);
        vm.prank(ANNA);
        eq(settlement.withdraw(BERT), 500); // the request stands, too
        settlement.payout(_nodes());
        eq(token.balanceOf(wallet1), 300);
    }

    /// @dev Payer and operator choose where their money goes, so a refused address holds up nothing.
    function test_ARefusedAddressIsReplacedByAnother() external {
        BlockingToken blocking = new BlockingToken();
        _deployWith(address(blocking));
        _fill();
        fundReserve(40);
        vm.prank(OPERATOR);
        settlement.requestReserveWithdrawal(logId, 40);
        _requestAll(ANNA);
        blocking.setBlocked(BERT, true);
        bytes memory refusal = abi.encodeWithSelector(BlockingToken.Blocked.selector, BERT);
        reverts(refusal);
        vm.prank(ANNA);
        settlement.withdraw(BERT);
        vm.prank(ANNA);
        eq(settlement.withdraw(ANNA), 500);
        vm.startPrank(OPERATOR);
        reverts(refusal);
        settlement.withdrawReserve(logId, BERT);
        eq(settlement.withdrawReserve(logId, OPERATOR), 40);
    }

    /// @dev One token refuses everybody for a while: nothing is lost, and batches go on.
    function test_ATokenThatIsPausedDelaysOnly() external {
        BlockingToken blocking = new BlockingToken();
        _deployWith(address(blocking));
        _fill();
        blocking.setBlocked(wallet1, true);
        blocking.setBlocked(wallet2, true);
        blocking.setBlocked(address(settlement), true);
        settlement.payout(_nodes());
        settle(nextBatch(row(ANNA, 5), row(node1, 5), 0));
        eq(creditOf(node1), 305);
        eq(creditOf(node2), 200);
    }

    function test_AnUpwardRebaseChangesNobodysClaim() external {
        RebasingToken rebasing = new RebasingToken();
        _deployWith(address(rebasing));
        _fill();
        rebasing.rebase(200);
        eq(token.balanceOf(address(settlement)), 2_000); // the surplus is nobody's
        settlement.payout(_nodes());
        eq(token.balanceOf(wallet1), 300);
        _requestAll(ANNA);
        vm.prank(ANNA);
        eq(settlement.withdraw(ANNA), 500);
        eq(token.balanceOf(ANNA), 500);
    }

    /// @dev No contract can refuse such a token at deployment: it looks like any other until it rebases. Then
    /// every claim is paid by the same share, whoever comes first.
    function test_ADownwardRebaseIsBorneByAllAlike() external {
        RebasingToken rebasing = new RebasingToken();
        _deployWith(address(rebasing));
        _fill(); // Anna is owed 500, the nodes 500
        _requestAll(ANNA);
        rebasing.rebase(50);
        eq(settlement.owed(), 1_000);
        eq(token.balanceOf(address(settlement)), 500);
        vm.prank(ANNA);
        eq(settlement.withdraw(ANNA), 500); // the claim that ended
        eq(token.balanceOf(ANNA), 250);
        settlement.payout(_nodes());
        eq(token.balanceOf(wallet1), 150);
        eq(token.balanceOf(wallet2), 100);
        eq(settlement.owed(), 0);
    }

    /// @dev A deposit would pay for those who were there before.
    function test_NothingIsTakenInWhileTokensAreMissing() external {
        RebasingToken rebasing = new RebasingToken();
        _deployWith(address(rebasing));
        _fill();
        rebasing.rebase(50);
        bytes memory refusal = abi.encodeWithSelector(ISettlementBase.TokensMissing.selector, 1_000, 500);
        _hold(BERT, 70);
        reverts(refusal);
        vm.prank(BERT);
        settlement.deposit(70);
        reverts(refusal);
        vm.prank(BERT);
        settlement.fundReserve(logId, 70);
        rebasing.rebase(100);
        vm.prank(BERT);
        settlement.deposit(70);
        eq(settlement.owed(), 1_070);
    }

    /// @dev What a token refuses to pay keeps its claim, and its share.
    function test_ARefusedPayoutIsStillOwed() external {
        BlockingToken blocking = new BlockingToken();
        _deployWith(address(blocking));
        _fill();
        blocking.setBlocked(wallet1, true);
        settlement.payout(_nodes());
        eq(settlement.owed(), 800); // 500 Anna's, 300 the refused node's
    }

    function _deployWith(address token_) private {
        deploy(IMintable(token_), EVERYTHING_PPM);
        (node1, wallet1) = registerNode(1);
        (node2, wallet2) = registerNode(2);
    }

    function _hold(address payer, uint96 amount) private {
        token.mint(payer, amount);
        vm.prank(payer);
        token.approve(address(settlement), amount);
    }

    /// @dev 1,000 held: 500 are Anna's, 300 and 200 two nodes'.
    function _fill() private {
        depositAndAssign(ANNA, 1_000);
        settle(nextBatch(row(ANNA, 500), bytes.concat(row(node1, 300), row(node2, 200)), 0));
    }

    function _requestAll(address payer) private {
        vm.prank(payer);
        settlement.requestWithdrawal(500);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
    }

    function _nodes() private view returns (address[] memory nodes) {
        nodes = new address[](2);
        (nodes[0], nodes[1]) = (node1, node2);
    }
}
