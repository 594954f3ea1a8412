// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeBonds} from "../../contracts/interfaces/INodeBonds.sol";
import {ISettlementBase} from "../../contracts/interfaces/ISettlementBase.sol";
import {IMintable} from "./support/IMintable.sol";
import {Network} from "./support/Network.sol";
import {Peer, Peers} from "./support/Peers.sol";
import {FeeToken, ReenteringToken} from "./support/Tokens.sol";

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @dev Bonds: who may fund one, how it leaves, who takes it.
contract NodeBondsTest is Network {
    address private constant FUNDER = address(0xf00d);
    address private constant SAFE = address(0x5afe);

    address private node;
    address private wallet;
    address private otherNode;

    function setUp() external {
        deploy();
        _registerNodes();
    }

    function test_TheRegistrySaysWhatBondsAreMadeOf() external view {
        eq(address(nodeRegistry.token()), address(token));
        eq(nodeRegistry.faults(), address(faults));
        eq(nodeRegistry.unbondingDelay(), UNBONDING_DELAY);
    }

    function test_ANodeBondsItself() external {
        _equip(node, 70);
        vm.expectEmit(address(nodeRegistry));
        emit INodeBonds.Bonded(node, node, 50);
        nodeRegistry.bond(node, 50);
        _eqBond(node, 50, node, 0);
        nodeRegistry.bond(node, 20);
        _eqBond(node, 70, node, 0);
        eq(token.balanceOf(address(nodeRegistry)), 70);
        _eqBond(otherNode, 0, address(0), 0);
    }

    function test_ThePayoutWalletInForceBonds() external {
        _bond(wallet, node, 50);
        _eqBond(node, 50, wallet, 0);
    }

    function test_AWaitingPayoutWalletDoesNotBondYet() external {
        address next = address(0xbee2);
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, node, 2);
        vm.prank(node);
        nodeRegistry.register(next, peer.x, peer.y, binding);
        _equip(next, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotAllowedToFund.selector, node, next));
        nodeRegistry.bond(node, 50);
        vm.warp(block.timestamp + PAYOUT_DELAY);
        nodeRegistry.bond(node, 50);
        vm.stopPrank();
        _equip(wallet, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotFunder.selector, node, next, wallet));
        nodeRegistry.bond(node, 50);
    }

    function test_AStrangerMayNotBond() external {
        _equip(STRANGER, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotAllowedToFund.selector, node, STRANGER));
        nodeRegistry.bond(node, 50);
    }

    function test_OnlyARegisteredNodeIsBonded() external {
        _equip(STRANGER, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NodeNotRegistered.selector, STRANGER));
        nodeRegistry.bond(STRANGER, 50);
    }

    function test_NodeAndPayoutWalletAllowAFunder() external {
        vm.expectEmit(address(nodeRegistry));
        emit INodeBonds.FunderAllowed(node, STRANGER);
        vm.prank(node);
        nodeRegistry.allowFunder(node, STRANGER);
        eq(nodeRegistry.allowedFunderOf(node), STRANGER);
        vm.prank(wallet);
        nodeRegistry.allowFunder(node, FUNDER); // in place of the former
        eq(nodeRegistry.allowedFunderOf(node), FUNDER);
        _equip(STRANGER, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotAllowedToFund.selector, node, STRANGER));
        nodeRegistry.bond(node, 50);
        vm.stopPrank();
        _bond(FUNDER, node, 50);
        _eqBond(node, 50, FUNDER, 0);
    }

    function test_OthersAllowNobody() external by(otherNode) {
        reverts(abi.encodeWithSelector(INodeBonds.NotNodeOrPayout.selector, node, otherNode));
        nodeRegistry.allowFunder(node, otherNode);
    }

    function test_AnAllowanceIsForOneNode() external {
        vm.prank(node);
        nodeRegistry.allowFunder(node, FUNDER);
        _equip(FUNDER, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotAllowedToFund.selector, otherNode, FUNDER));
        nodeRegistry.bond(otherNode, 50);
    }

    function test_AnAllowanceCanBeTakenBack() external {
        vm.startPrank(node);
        nodeRegistry.allowFunder(node, FUNDER);
        nodeRegistry.allowFunder(node, address(0));
        vm.stopPrank();
        _equip(FUNDER, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotAllowedToFund.selector, node, FUNDER));
        nodeRegistry.bond(node, 50);
    }

    function test_AnAllowanceIsGoodForOneBond() external {
        vm.prank(node);
        nodeRegistry.allowFunder(node, FUNDER);
        _bond(FUNDER, node, 50);
        eq(nodeRegistry.allowedFunderOf(node), address(0));
        _leave(FUNDER);
        _equip(FUNDER, 1);
        reverts(abi.encodeWithSelector(INodeBonds.NotAllowedToFund.selector, node, FUNDER));
        nodeRegistry.bond(node, 1);
        vm.stopPrank();
        _bond(node, node, 5); // nobody keeps the node out
    }

    function test_ABondHasOneFunder() external {
        _bond(wallet, node, 50);
        vm.prank(node);
        nodeRegistry.allowFunder(node, FUNDER); // for the next bond
        _equip(FUNDER, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotFunder.selector, node, wallet, FUNDER));
        nodeRegistry.bond(node, 50);
        vm.stopPrank();
        _leave(wallet);
        eq(nodeRegistry.allowedFunderOf(node), FUNDER);
        _bond(FUNDER, node, 50);
    }

    function test_AFailedBondChangesNothing() external {
        vm.prank(node);
        nodeRegistry.allowFunder(node, FUNDER);
        _equip(FUNDER, 50);
        reverts(ISettlementBase.ZeroAmount.selector);
        nodeRegistry.bond(node, 0);
        eq(nodeRegistry.allowedFunderOf(node), FUNDER);
        _eqBond(node, 0, address(0), 0);
    }

    function test_ABondIsExactlyWhatArrived() external {
        deploy(IMintable(address(new FeeToken())), EVERYTHING_PPM);
        _registerNodes();
        _equip(node, 50);
        reverts(abi.encodeWithSelector(ISettlementBase.WrongAmountReceived.selector, 50, 49));
        nodeRegistry.bond(node, 50);
    }

    function test_TheFunderTakesTheBondBackAfterTheDelay() external {
        _bond(wallet, node, 50);
        uint40 unbondingAt = uint40(block.timestamp) + UNBONDING_DELAY;
        vm.startPrank(wallet);
        reverts(ISettlementBase.NothingRequested.selector);
        nodeRegistry.withdrawBond(node, SAFE);
        vm.expectEmit(address(nodeRegistry));
        emit INodeBonds.UnbondingRequested(node, unbondingAt);
        nodeRegistry.requestUnbonding(node);
        _eqBond(node, 50, wallet, unbondingAt);
        vm.warp(unbondingAt - 1);
        reverts(abi.encodeWithSelector(ISettlementBase.TooEarly.selector, unbondingAt, unbondingAt - 1));
        nodeRegistry.withdrawBond(node, SAFE);
        vm.warp(unbondingAt);
        reverts(ISettlementBase.ZeroAddress.selector);
        nodeRegistry.withdrawBond(node, address(0));
        vm.expectEmit(address(nodeRegistry));
        emit INodeBonds.BondWithdrawn(node, SAFE, 50);
        eq(nodeRegistry.withdrawBond(node, SAFE), 50);
        eq(token.balanceOf(SAFE), 50);
        _eqBond(node, 0, address(0), 0);
        reverts(abi.encodeWithSelector(INodeBonds.NotFunder.selector, node, address(0), wallet));
        nodeRegistry.withdrawBond(node, SAFE);
    }

    function test_OnlyTheFunderSaysWhereABondGoes() external {
        _bond(wallet, node, 50);
        bytes memory refusal = abi.encodeWithSelector(INodeBonds.NotFunder.selector, node, wallet, node);
        vm.startPrank(node); // not even the node itself
        reverts(refusal);
        nodeRegistry.cancelUnbonding(node);
        reverts(refusal);
        nodeRegistry.withdrawBond(node, SAFE);
        vm.stopPrank();
        vm.startPrank(STRANGER);
        reverts(abi.encodeWithSelector(INodeBonds.NotNodeOrPayout.selector, node, STRANGER));
        nodeRegistry.requestUnbonding(node);
        vm.warp(block.timestamp + 1);
        vm.stopPrank();
        vm.prank(wallet);
        nodeRegistry.requestUnbonding(node);
        vm.warp(block.timestamp + UNBONDING_DELAY);
        reverts(abi.encodeWithSelector(INodeBonds.NotNodeOrPayout.selector, node, STRANGER));
        vm.prank(STRANGER);
        nodeRegistry.withdrawBond(node, wallet);
    }

    /// @dev A former payout wallet must not keep the place with a trifle.
    function test_TheNodeCanSendABondBackToItsFunder() external {
        vm.prank(node);
        nodeRegistry.allowFunder(node, SAFE);
        _bond(SAFE, node, 1);
        vm.prank(node);
        nodeRegistry.requestUnbonding(node);
        uint40 unbondingAt = uint40(block.timestamp) + UNBONDING_DELAY;
        reverts(abi.encodeWithSelector(INodeBonds.NotAllowedToFund.selector, node, SAFE));
        vm.prank(SAFE);
        nodeRegistry.cancelUnbonding(node); // its allowance was used up
        vm.startPrank(node);
        reverts(abi.encodeWithSelector(ISettlementBase.TooEarly.selector, unbondingAt, block.timestamp));
        nodeRegistry.withdrawBond(node, SAFE);
        vm.warp(unbondingAt);
        eq(nodeRegistry.withdrawBond(node, SAFE), 1);
        eq(token.balanceOf(SAFE), 1);
        _eqBond(node, 0, address(0), 0);
        reverts(abi.encodeWithSelector(INodeBonds.NotFunder.selector, node, address(0), node));
        nodeRegistry.requestUnbonding(node);
    }

    function test_RequestingAgainDoesNotMoveTheTime() external {
        _bond(node, node, 50);
        uint40 unbondingAt = uint40(block.timestamp) + UNBONDING_DELAY;
        vm.startPrank(node);
        nodeRegistry.requestUnbonding(node);
        vm.warp(block.timestamp + 1);
        reverts(abi.encodeWithSelector(INodeBonds.UnbondingPending.selector, node, unbondingAt));
        nodeRegistry.requestUnbonding(node);
    }

    function test_UnbondingCanBeCancelled() external {
        _bond(node, node, 50);
        vm.startPrank(node);
        reverts(ISettlementBase.NothingRequested.selector);
        nodeRegistry.cancelUnbonding(node);
        nodeRegistry.requestUnbonding(node);
        vm.warp(block.timestamp + UNBONDING_DELAY);
        vm.expectEmit(address(nodeRegistry));
        emit INodeBonds.UnbondingRequested(node, 0);
        nodeRegistry.cancelUnbonding(node);
        reverts(ISettlementBase.NothingRequested.selector);
        nodeRegistry.withdrawBond(node, SAFE);
        _eqBond(node, 50, node, 0);
    }

    function test_NoMoneyJoinsABondThatLeaves() external {
        _equip(node, 60);
        nodeRegistry.bond(node, 50);
        nodeRegistry.requestUnbonding(node);
        uint40 unbondingAt = uint40(block.timestamp) + UNBONDING_DELAY;
        reverts(abi.encodeWithSelector(INodeBonds.UnbondingPending.selector, node, unbondingAt));
        nodeRegistry.bond(node, 10);
        nodeRegistry.cancelUnbonding(node);
        nodeRegistry.bond(node, 10);
        _eqBond(node, 60, node, 0);
    }

    function test_TheFaultsContractTakesTheWholeBond() external {
        _bond(wallet, node, 50);
        _bond(otherNode, otherNode, 30);
        vm.expectEmit(address(nodeRegistry));
        emit INodeBonds.BondSlashed(node, wallet, 50);
        vm.prank(address(faults));
        eq(nodeRegistry.slashBond(node), 50);
        eq(token.balanceOf(address(faults)), 50);
        _eqBond(node, 0, address(0), 0);
        _eqBond(otherNode, 30, otherNode, 0); // nobody else's money
        vm.prank(address(faults));
        eq(nodeRegistry.slashBond(node), 0);
        eq(token.balanceOf(address(nodeRegistry)), 30);
    }

    function test_UnbondingDoesNotSaveABond() external {
        _bond(node, node, 50);
        vm.prank(node);
        nodeRegistry.requestUnbonding(node);
        vm.warp(block.timestamp + UNBONDING_DELAY); // matured, not yet withdrawn
        vm.prank(address(faults));
        eq(nodeRegistry.slashBond(node), 50);
        _bond(node, node, 7);
        reverts(ISettlementBase.NothingRequested.selector); // what comes later is not ready to leave
        vm.prank(node);
        nodeRegistry.withdrawBond(node, SAFE);
    }

    function test_NobodyElseSlashesABond() external {
        _bond(node, node, 50);
        reverts(abi.encodeWithSelector(INodeBonds.NotFaults.selector, ADMIN));
        vm.prank(ADMIN);
        nodeRegistry.slashBond(node);
    }

    function test_AReenteringTokenGetsNothingTwice() external {
        ReenteringToken reentering = new ReenteringToken();
        deploy(IMintable(address(reentering)), EVERYTHING_PPM);
        _registerNodes();
        vm.prank(node);
        nodeRegistry.allowFunder(node, address(reentering)); // the token funds, so its calls are a funder's
        _bond(address(reentering), node, 50);
        _bond(otherNode, otherNode, 50);
        vm.startPrank(address(reentering));
        bytes memory withdraw = abi.encodeCall(INodeBonds.withdrawBond, (node, SAFE));
        token.mint(address(reentering), 10);
        token.approve(address(nodeRegistry), 10);
        nodeRegistry.requestUnbonding(node);
        vm.warp(block.timestamp + UNBONDING_DELAY);
        reentering.arm(address(nodeRegistry), withdraw);
        nodeRegistry.withdrawBond(node, SAFE);
        vm.stopPrank();
        _eqReentrant(reentering);
        vm.prank(node);
        nodeRegistry.allowFunder(node, address(reentering));
        vm.startPrank(address(reentering));
        reentering.arm(address(nodeRegistry), abi.encodeCall(INodeBonds.bond, (node, 1)));
        nodeRegistry.bond(node, 10);
        vm.stopPrank();
        _eqReentrant(reentering);
        eq(token.balanceOf(SAFE), 50);
        eq(token.balanceOf(address(nodeRegistry)), 60);
    }

    function testFuzz_EveryUnitOfABondComesBackOrIsSlashed(uint96 first, uint96 more, bool slashed) external {
        first = uint96(bound(first, 1, type(uint96).max - 1));
        more = uint96(bound(more, 1, type(uint96).max - first));
        _bond(node, node, first);
        _bond(node, node, more);
        _eqBond(node, first + more, node, 0);
        if (slashed) {
            vm.prank(address(faults));
            eq(nodeRegistry.slashBond(node), first + more);
        } else {
            _leave(node);
            eq(token.balanceOf(SAFE), first + more);
        }
        eq(token.balanceOf(address(nodeRegistry)), 0);
    }

    function _registerNodes() private {
        (node, wallet) = registerNode(0);
        (otherNode, ) = registerNode(1);
    }

    /// @dev Gives `account` money that the registry may take, and acts as it from now on.
    function _equip(address account, uint96 amount) private {
        token.mint(account, amount);
        vm.startPrank(account);
        token.approve(address(nodeRegistry), amount);
    }

    function _bond(address funder, address bonded, uint96 amount) private {
        _equip(funder, amount);
        nodeRegistry.bond(bonded, amount);
        vm.stopPrank();
    }

    function _leave(address funder) private {
        vm.startPrank(funder);
        nodeRegistry.requestUnbonding(node);
        vm.warp(block.timestamp + UNBONDING_DELAY);
        nodeRegistry.withdrawBond(node, SAFE);
        vm.stopPrank();
    }

    function _eqBond(address bonded, uint256 amount, address funder, uint256 unbondingAt) private view {
        (uint96 amountNow, address funderNow, uint40 unbondingNow) = nodeRegistry.bondOf(bonded);
        eq(amountNow, amount);
        eq(funderNow, funder);
        eq(unbondingNow, unbondingAt);
    }

    function _eqReentrant(ReenteringToken reentering) private view {
        check(!reentering.succeeded());
        eq(
            keccak256(reentering.returned()),
            keccak256(abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector))
        );
    }
}
