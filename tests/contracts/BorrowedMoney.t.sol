// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogAnchors} from "../../contracts/interfaces/ILogAnchors.sol";
import {ISettlement} from "../../contracts/interfaces/ISettlement.sol";
import {Batch} from "../../contracts/libraries/TypedData.sol";
import {IMintable} from "./support/IMintable.sol";
import {Network} from "./support/Network.sol";

/// @dev Holds a stolen epoch key: borrows, deposits, settles and withdraws in one call.
contract Thief {
    ISettlement private immutable SETTLEMENT;
    IMintable private immutable TOKEN;

    constructor(ISettlement settlement, IMintable token) {
        (SETTLEMENT, TOKEN) = (settlement, token);
    }

    function prepare(bytes32 logId) external {
        SETTLEMENT.assign(logId);
        SETTLEMENT.requestWithdrawal(type(uint96).max);
    }

    function steal(
        address lender,
        uint96 borrowed,
        Batch calldata batch,
        bytes calldata signature,
        bytes32[] calldata proof,
        ILogAnchors.LastAnchor calldata last
    ) external returns (uint96 withdrawn) {
        TOKEN.transferFrom(lender, address(this), borrowed);
        TOKEN.approve(address(SETTLEMENT), borrowed);
        SETTLEMENT.deposit(borrowed);
        SETTLEMENT.settle(batch, signature, proof, last);
        return SETTLEMENT.withdraw(lender);
    }
}

/// @dev Requests are for money that is there: else what came a moment ago could leave at once, and borrowed
/// money lift the debit limit for one transaction, or a reserve stand only until somebody looks.
contract BorrowedMoneyTest is Network {
    address private constant ANNA = address(0xa000);
    address private constant NODE = address(0x1001);
    address private constant LENDER = address(0x1e4d);

    function setUp() external {
        deploy(IMintable(create(TEST_TOKEN, "")), 200_000);
        depositAndAssign(ANNA, 1_000);
    }

    function test_WhatWasDepositedAfterARequestWaitsItsOwnDelay() external {
        Thief thief = new Thief(settlement, token);
        thief.prepare(logId);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        token.mint(LENDER, 4_000);
        vm.prank(LENDER);
        token.approve(address(thief), 4_000);
        Batch memory batch = nextBatch(row(ANNA, 1_000), row(NODE, 1_000), 0);
        bytes memory signed = signature(enclaveKey, digestOf(batch));
        uint96 withdrawn = thief.steal(LENDER, 4_000, batch, signed, consistencyOf(batch), lastAnchor());
        eq(withdrawn, 0); // a lender would not have lent
        eq(balanceOf(address(thief)), 4_000);
    }

    function test_ADepositCutsARequestToWhatWasThere() external {
        vm.prank(ANNA);
        settlement.requestWithdrawal(type(uint96).max);
        uint40 availableAt = uint40(block.timestamp) + WITHDRAWAL_DELAY;
        deposit(ANNA, 1); // by whomever: what was there can still leave
        eq(settlement.accountOf(logId, ANNA).requested, 1_000);
        vm.warp(availableAt);
        vm.prank(ANNA);
        eq(settlement.withdraw(ANNA), 1_000);
        eq(balanceOf(ANNA), 1);
    }

    function test_AReserveFundedAfterARequestWaitsItsOwnDelay() external {
        fundReserve(5);
        vm.prank(OPERATOR);
        settlement.requestReserveWithdrawal(logId, type(uint96).max);
        vm.warp(block.timestamp + WITHDRAWAL_DELAY);
        fundReserve(600);
        vm.prank(OPERATOR);
        eq(settlement.withdrawReserve(logId, OPERATOR), 5);
        eq(settlement.logStateOf(logId).reserve, 600);
    }
}
