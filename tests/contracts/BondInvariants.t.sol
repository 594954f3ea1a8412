// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Completion} from "../../contracts/libraries/TypedData.sol";
import {Evidence} from "./support/Evidence.sol";

/// @dev Does what funders, nodes, reporters and strangers may do to bonds and a reserve, in any order, and
/// keeps count. Calls that can't succeed are left out, so every revert is a defect; but what must wait is
/// tried at any time.
contract BondHandler is Evidence {
    uint256 private constant NODES = 2;
    address private constant SINK = address(0x5111c);

    uint256 public paidIn; // into bonds and reserve, ever
    uint256 public slashed; // ever
    uint256 public rewarded; // ever
    uint256 public swept; // ever
    bool public leftTooEarly;
    mapping(address node => uint256) private _lastPaidIn;
    uint64 private _faults;

    constructor() {
        deploy();
        for (uint256 i = 0; i < NODES; ++i) registerKey(nodeAt(i), i);
    }

    function bond(uint256 who, bool byOther, uint96 amount) external {
        address node = nodeAt(who % NODES);
        (uint96 present, address funder, ) = nodeRegistry.bondOf(node);
        if (present == 0) funder = byOther ? nodeAt(((who % NODES) + 1) % NODES) : node;
        if (present == 0 && byOther) {
            vm.prank(node);
            nodeRegistry.allowFunder(node, funder);
        }
        amount = uint96(bound(amount, 1, 1e12));
        token.mint(funder, amount);
        vm.startPrank(funder);
        token.approve(address(nodeRegistry), amount);
        try nodeRegistry.bond(node, amount) {
            paidIn += amount;
            _lastPaidIn[node] = block.timestamp;
        } catch {
            check(present != 0); // only a bond that leaves takes no more
        }
        vm.stopPrank();
    }

    function requestOrCancel(uint256 who) external {
        address node = nodeAt(who % NODES);
        (uint96 amount, address funder, uint40 unbondingAt) = nodeRegistry.bondOf(node);
        if (amount == 0) return;
        vm.prank(node); // may send it back, and must want it to stay
        if (unbondingAt == 0) return nodeRegistry.requestUnbonding(node);
        nodeRegistry.allowFunder(node, funder);
        if (who % 8 >= NODES) return;
        vm.prank(funder);
        nodeRegistry.cancelUnbonding(node);
    }

    function withdraw() external {
        for (uint256 i = 0; i < NODES; ++i) _withdraw(nodeAt(i));
    }

    /// @dev The whole way out, which chance alone rarely finds.
    function leave(uint256 who) external {
        address node = nodeAt(who % NODES);
        (uint96 amount, address funder, uint40 unbondingAt) = nodeRegistry.bondOf(node);
        if (amount == 0) return;
        if (unbondingAt == 0) {
            vm.prank(funder);
            nodeRegistry.requestUnbonding(node);
            (, , unbondingAt) = nodeRegistry.bondOf(node);
        }
        if (unbondingAt > block.timestamp) vm.warp(unbondingAt);
        _withdraw(node);
    }

    function fund(uint96 amount) external {
        amount = uint96(bound(amount, 1, 1e12));
        fundReserve(amount);
        paidIn += amount;
    }

    function withdrawReserve() external by(OPERATOR) {
        (, uint40 availableAt) = settlement.reserveRequestOf(logId);
        if (availableAt == 0) settlement.requestReserveWithdrawal(logId, reserveOf(logId) / 2);
        else if (block.timestamp >= availableAt) settlement.withdrawReserve(logId, SINK);
    }

    function equivocate(uint256 who) external {
        uint256 key = NODE_KEY + (who % NODES);
        slashed += bondOf(vm.addr(key));
        _reportTwo(key);
    }

    function fork() external {
        slashed += reserveOf(logId);
        uint256 before = token.balanceOf(REPORTER);
        reportTwoRoots(++_faults);
        rewarded += token.balanceOf(REPORTER) - before;
    }

    function sweep() external {
        swept += faults.sweep();
    }

    function passTime(uint32 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, 5 days));
    }

    function bonds() external view returns (uint256 sum) {
        for (uint256 i = 0; i < NODES; ++i) sum += bondOf(nodeAt(i));
    }

    /// @dev A bond has money and a funder, or neither and no request.
    function bondsAreWhole() external view returns (bool whole) {
        whole = true;
        for (uint256 i = 0; i < NODES; ++i) {
            (uint96 amount, address funder, uint40 unbondingAt) = nodeRegistry.bondOf(nodeAt(i));
            whole = whole && (amount == 0) == (funder == address(0)) && (amount != 0 || unbondingAt == 0);
        }
    }

    function reserve() external view returns (uint256) {
        return reserveOf(logId);
    }

    /// @dev Token balances: registry, Settlement, faults contract, reporter, beneficiary, all who left.
    function held() external view returns (uint256[6] memory) {
        return
            [
                token.balanceOf(address(nodeRegistry)),
                token.balanceOf(address(settlement)),
                token.balanceOf(address(faults)),
                token.balanceOf(REPORTER),
                token.balanceOf(BENEFICIARY),
                token.balanceOf(SINK)
            ];
    }

    function nodeAt(uint256 index) public pure returns (address) {
        return vm.addr(NODE_KEY + index);
    }

    function _withdraw(address node) private {
        (, address funder, uint40 unbondingAt) = nodeRegistry.bondOf(node);
        bool matured = unbondingAt != 0 && block.timestamp >= unbondingAt;
        vm.prank(funder);
        try nodeRegistry.withdrawBond(node, SINK) {
            if (block.timestamp < _lastPaidIn[node] + UNBONDING_DELAY) leftTooEarly = true;
        } catch {
            check(!matured);
        }
    }

    function _reportTwo(uint256 key) private {
        bytes32 award = bytes32(uint256(++_faults));
        uint256 before = token.balanceOf(REPORTER);
        Completion memory second = completion(vm.addr(key), award);
        second.finishedMs += 1;
        report(completion(vm.addr(key), award), second, key);
        rewarded += token.balanceOf(REPORTER) - before;
    }
}

/// @dev What holds after any sequence of calls.
contract BondInvariantsTest is Evidence {
    BondHandler private handler;

    function setUp() external {
        handler = new BondHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_BondsAndReserveAreHeldToTheUnit() external view {
        uint256[6] memory held = handler.held();
        eq(held[0], handler.bonds());
        eq(held[1], handler.reserve());
        check(handler.bondsAreWhole());
    }

    function invariant_WhatIsSlashedIsSharedAndSwept() external view {
        uint256[6] memory held = handler.held();
        eq(held[3], handler.rewarded());
        eq(held[4], handler.swept());
        eq(handler.slashed(), held[2] + held[3] + held[4]);
    }

    function invariant_NothingLeavesButBySlashingAndAfterTheDelay() external view {
        uint256[6] memory held = handler.held();
        eq(handler.paidIn(), held[0] + held[1] + held[5] + handler.slashed());
        check(!handler.leftTooEarly());
    }
}
