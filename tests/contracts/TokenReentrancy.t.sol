// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogFunds} from "../../contracts/interfaces/ILogFunds.sol";
import {INodeCredits} from "../../contracts/interfaces/INodeCredits.sol";
import {IPayerAccounts} from "../../contracts/interfaces/IPayerAccounts.sol";
import {ISettlement} from "../../contracts/interfaces/ISettlement.sol";
import {Batch} from "../../contracts/libraries/TypedData.sol";
import {IMintable} from "./support/IMintable.sol";
import {Network} from "./support/Network.sol";
import {HookedToken, Reenterer} from "./support/OddTokens.sol";
import {Peer, Peers} from "./support/Peers.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @dev A token with hooks, and a party with code that is payer, node, payout wallet and operator at once and
/// calls back from the hooks. Every function that moves tokens is tried with every function that it could
/// call back; afterwards the party owns what it owned before, to the base unit.
contract TokenReentrancyTest is Network {
    address private constant BERT = address(0xb000);

    HookedToken private hooked;
    Reenterer private mallory;
    bytes32 private malloryLog;

    /// @dev Mallory holds 1,000, has 5,000 on account and 700 of credit, and operates a log with a reserve of
    /// 400. Everything that can be asked for has been, and has matured.
    function setUp() external {
        hooked = new HookedToken();
        deploy(IMintable(address(hooked)), EVERYTHING_PPM);
        mallory = new Reenterer();
        malloryLog = openLog(address(mallory));
        Peer memory peer = Peers.get(1);
        bytes memory binding = bindingSignature(peer, address(mallory), 2);
        vm.prank(address(mallory));
        nodeRegistry.register(address(mallory), peer.x, peer.y, binding);
        depositAndAssign(BERT, 9_000);
        depositAndAssign(address(mallory), 5_000);
        settle(nextBatch(row(BERT, 730), row(address(mallory), 700), 30));
        hooked.mint(address(mallory), 1_400);
        _do(address(token), abi.encodeCall(IERC20.approve, (address(settlement), type(uint256).max)));
        _do(abi.encodeCall(ILogFunds.fundReserve, (malloryLog, 400)));
        _do(abi.encodeCall(ILogFunds.requestReserveWithdrawal, (malloryLog, 300)));
        _do(abi.encodeCall(IPayerAccounts.requestWithdrawal, (2_000)));
        _do(abi.encodeCall(IPayerAccounts.requestMove, (malloryLog)));
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
    }

    function test_NoFunctionThatMovesTokensCanBeEnteredTwice() external {
        bytes[] memory moving = _moving();
        bytes memory refusal = abi.encodeWithSelector(
            ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector
        );
        for (uint256 outer = 0; outer < moving.length; ++outer) {
            for (uint256 inner = 0; inner < moving.length; ++inner) {
                this.tryOnce(moving[outer], moving[inner], refusal);
            }
        }
    }

    function test_WhatCanBeCalledBackGainsNothing() external {
        bytes[] memory moving = _moving();
        bytes[] memory others = _others();
        for (uint256 outer = 0; outer < moving.length; ++outer) {
            for (uint256 inner = 0; inner < others.length; ++inner) {
                this.tryOnce(moving[outer], others[inner], "");
            }
        }
    }

    /// @dev As if the batch had come after the withdrawal: it finds the balance that is left.
    function test_ABatchSettledInsideAWithdrawalFindsWhatIsLeft() external {
        Batch memory batch = nextBatch(row(address(mallory), 4_000), row(BERT, 4_000), 0);
        mallory.arm(address(settlement), _settleCall(batch));
        _do(abi.encodeCall(IPayerAccounts.withdraw, (address(mallory))));
        check(mallory.called() && mallory.succeeded());
        eq(balanceOf(address(mallory)), 0);
        eq(creditOf(BERT), 3_000);
        eq(settlement.logStateOf(logId).sequence, 2);
        eq(_owed(), token.balanceOf(address(settlement)));
    }

    /// @dev As if the batch had come before the deposit.
    function test_ABatchSettledInsideADepositDoesNotSeeIt() external {
        Batch memory batch = nextBatch(row(address(mallory), 5_500), row(BERT, 5_500), 0);
        mallory.arm(address(settlement), _settleCall(batch));
        _do(abi.encodeCall(IPayerAccounts.deposit, (900)));
        check(mallory.called() && mallory.succeeded());
        eq(balanceOf(address(mallory)), 900);
        eq(creditOf(BERT), 5_000);
        eq(_owed(), token.balanceOf(address(settlement)));
    }

    /// @dev The payee settles a batch that credits it, then its payment fails: both credits stand.
    function test_ABatchSettledInsideAFailingPayoutKeepsItsCredit() external {
        Batch memory batch = nextBatch(row(BERT, 50), row(address(mallory), 50), 0);
        mallory.arm(address(settlement), _settleCall(batch));
        hooked.setRefusing(true);
        vm.expectEmit(address(settlement));
        emit INodeCredits.PayoutFailed(address(mallory), address(mallory), 700);
        settlement.payout(_list(address(mallory)));
        check(mallory.called() && mallory.succeeded());
        eq(creditOf(address(mallory)), 750);
        eq(_owed(), token.balanceOf(address(settlement)));
    }

    function test_ABatchSettledInsideAPayoutIsPaidByTheNext() external {
        Batch memory batch = nextBatch(row(BERT, 50), row(address(mallory), 50), 0);
        mallory.arm(address(settlement), _settleCall(batch));
        settlement.payout(_list(address(mallory)));
        check(mallory.called() && mallory.succeeded());
        eq(creditOf(address(mallory)), 50);
        eq(_owed(), token.balanceOf(address(settlement)));
    }

    /// @dev A second pull inside the first would be counted twice, so what arrives must be exact.
    function test_AGiftInsideADepositIsNotCredited() external {
        mallory.arm(address(token), abi.encodeCall(IERC20.transfer, (address(settlement), 10)));
        try mallory.forward(address(settlement), abi.encodeCall(IPayerAccounts.deposit, (100))) {
            check(false);
        } catch (bytes memory reason) {
            eq(
                keccak256(reason),
                keccak256(abi.encodeWithSignature("WrongAmountReceived(uint256,uint256)", 100, 110))
            );
        }
    }

    /// @dev Runs `outer` with `inner` called back, checks that nothing was gained, and undoes it all.
    /// @param refusal What `inner` must answer; empty: anything.
    function tryOnce(bytes calldata outer, bytes calldata inner, bytes calldata refusal) external {
        try this.attack(outer, inner, refusal) {
            check(false);
        } catch (bytes memory reason) {
            if (bytes4(reason) != Undone.selector) {
                assembly ("memory-safe") {
                    revert(add(reason, 32), mload(reason))
                }
            }
        }
    }

    error Undone();

    function attack(bytes calldata outer, bytes calldata inner, bytes calldata refusal) external {
        uint256 before = _wealth();
        mallory.arm(address(settlement), inner);
        _do(outer);
        check(mallory.called());
        if (refusal.length != 0) {
            check(!mallory.succeeded());
            eq(keccak256(mallory.returned()), keccak256(refusal));
        }
        eq(_wealth(), before);
        eq(_owed(), token.balanceOf(address(settlement)));
        revert Undone();
    }

    /// @dev Every function that moves tokens, such that it succeeds.
    function _moving() private view returns (bytes[] memory calls) {
        calls = new bytes[](8);
        calls[0] = abi.encodeCall(IPayerAccounts.deposit, (100));
        calls[1] = abi.encodeCall(IPayerAccounts.depositFor, (address(mallory), 100));
        calls[2] = abi.encodeCall(IPayerAccounts.depositWithPermit, (address(mallory), 100, 0, 0, 0, 0));
        calls[3] = abi.encodeCall(IPayerAccounts.withdraw, (address(mallory)));
        calls[4] = abi.encodeCall(ILogFunds.fundReserve, (malloryLog, 100));
        calls[5] = abi.encodeCall(ILogFunds.withdrawReserve, (malloryLog, address(mallory)));
        calls[6] = abi.encodeCall(INodeCredits.withdrawCredit, ());
        calls[7] = abi.encodeCall(INodeCredits.payout, (_list(address(mallory))));
    }

    /// @dev Every function without the guard that its own caller may use.
    function _others() private view returns (bytes[] memory calls) {
        calls = new bytes[](7);
        calls[0] = abi.encodeCall(IPayerAccounts.assign, (malloryLog));
        calls[1] = abi.encodeCall(IPayerAccounts.requestMove, (bytes32(0)));
        calls[2] = abi.encodeCall(IPayerAccounts.completeMove, ());
        calls[3] = abi.encodeCall(IPayerAccounts.bumpGrantEpoch, ());
        calls[4] = abi.encodeCall(IPayerAccounts.requestWithdrawal, (4_000));
        calls[5] = abi.encodeCall(ILogFunds.requestReserveWithdrawal, (malloryLog, 400));
        calls[6] = abi.encodeCall(ISettlement.pause, (1));
    }

    function _settleCall(Batch memory batch) private view returns (bytes memory) {
        bytes memory signed = signature(ENCLAVE_KEY, digestOf(batch));
        return abi.encodeCall(ISettlement.settle, (batch, signed, consistencyOf(batch), lastAnchor()));
    }

    function _do(bytes memory data) private {
        _do(address(settlement), data);
    }

    function _do(address target, bytes memory data) private {
        mallory.forward(target, data);
    }

    /// @dev What Mallory holds and what it is owed.
    function _wealth() private view returns (uint256) {
        return token.balanceOf(address(mallory)) + _owedTo(address(mallory)) + _reserves();
    }

    function _owed() private view returns (uint256) {
        ILogFunds.LogState memory log = settlement.logStateOf(logId);
        return _owedTo(address(mallory)) + _owedTo(BERT) + _reserves() + log.reserve + log.fees;
    }

    function _owedTo(address party) private view returns (uint256 sum) {
        sum = uint256(creditOf(party)) + settlement.accountOf(0, party).balance;
        sum += uint256(balanceOf(party)) + settlement.accountOf(malloryLog, party).balance;
    }

    function _reserves() private view returns (uint256) {
        return settlement.logStateOf(malloryLog).reserve;
    }

    function _list(address node) private pure returns (address[] memory nodes) {
        nodes = new address[](1);
        nodes[0] = node;
    }
}
