// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogFunds} from "../../contracts/interfaces/ILogFunds.sol";
import {Batch} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";

/// @dev Does what payers, nodes, operator and strangers may do, in any order, and keeps count. Calls that
/// can't succeed are left out, so every revert is a defect. One log settles, a second one is there to
/// move to and back.
contract SettlementHandler is Network {
    uint256 private constant PARTIES = 3;

    bytes32 public otherLog;
    uint256 public deposited; // by payers, ever
    uint256 public withdrawn; // by payers, ever
    uint256 public debited; // from balances, ever
    uint256 public repaid; // of debts, ever
    uint64 public leastSize; // of the log, as of the last batch
    mapping(address node => uint256) public paidTo;

    constructor() {
        deploy();
        otherLog = openLog(OPERATOR);
        for (uint256 i = 0; i < 2; ++i) {
            registerNode(i); // the third node stays unregistered
        }
    }

    function deposit(uint256 who, uint96 amount) external {
        address payer = payerAt(who % PARTIES);
        amount = uint96(bound(amount, 1, 1e12));
        uint96 debt = settlement.debtOf(settlement.payerOf(payer).logId, payer);
        repaid += debt < amount ? debt : amount;
        deposited += amount;
        super.deposit(payer, amount);
    }

    function assign(uint256 who, bool other) external {
        address payer = payerAt(who % PARTIES);
        if (settlement.payerOf(payer).logId != 0) return;
        _countRepaid(payer, 0, other ? otherLog : logId);
        vm.prank(payer);
        settlement.assign(other ? otherLog : logId);
    }

    function requestMove(uint256 who, uint256 to) external {
        address payer = payerAt(who % PARTIES);
        if (settlement.payerOf(payer).logId == 0) return;
        vm.prank(payer);
        settlement.requestMove(logAt(to % 3));
    }

    function completeMove(uint256 who) external {
        address payer = payerAt(who % PARTIES);
        uint256 movableAt = settlement.payerOf(payer).movableAt;
        if (movableAt == 0 || block.timestamp < movableAt) return;
        _countRepaid(payer, settlement.payerOf(payer).logId, settlement.payerOf(payer).nextLogId);
        vm.prank(payer);
        settlement.completeMove();
    }

    function requestWithdrawal(uint256 who, uint96 amount) external {
        vm.prank(payerAt(who % PARTIES));
        settlement.requestWithdrawal(uint96(bound(amount, 0, 1e12)));
    }

    function withdraw(uint256 who) external {
        address payer = payerAt(who % PARTIES);
        uint256 availableAt = settlement.accountOf(settlement.payerOf(payer).logId, payer).availableAt;
        if (availableAt == 0 || block.timestamp < availableAt) return;
        vm.prank(payer);
        withdrawn += settlement.withdraw(address(0xca54));
    }

    function fund(uint96 amount) external {
        fundReserve(uint96(bound(amount, 1, 1e11)));
    }

    function withdrawReserve(uint96 amount) external by(OPERATOR) {
        (, uint40 availableAt) = settlement.reserveRequestOf(logId);
        if (availableAt != 0 && block.timestamp >= availableAt) {
            settlement.withdrawReserve(logId, OPERATOR);
        } else {
            settlement.requestReserveWithdrawal(logId, uint96(bound(amount, 0, 1e11)));
        }
    }

    function slashReserve() external by(address(faults)) {
        settlement.slashReserve(logId);
    }

    function withdrawFees() external by(OPERATOR) {
        if (settlement.logStateOf(logId).fees != 0) settlement.withdrawFees(logId, OPERATOR);
    }

    /// @dev A batch over two payers and two nodes, in balance but often more than the payers have.
    function settleBatch(uint96 a, uint96 b, uint256 first, uint96 split, uint96 fee) external {
        (a, b) = (uint96(bound(a, 1, 2e11)), uint96(bound(b, 1, 2e11)));
        fee = uint96(bound(fee, 0, (uint256(a) + b) / 10));
        uint96 net = a + b - fee;
        split = uint96(bound(split, 1, net - 1));
        first = first % 2;
        bytes memory debits = bytes.concat(row(payerAt(first), a), row(payerAt(first + 1), b));
        bytes memory credits = bytes.concat(row(nodeAt(first), split), row(nodeAt(first + 1), net - split));
        uint256 before = settlement.logStateOf(logId).assigned;
        Batch memory batch = nextBatch(debits, credits, fee);
        leastSize = batch.newSize;
        _renewEpoch(batch);
        settle(batch);
        debited += before - settlement.logStateOf(logId).assigned;
    }

    function payout(uint256 who) external {
        address[] memory nodes = new address[](2);
        (nodes[0], nodes[1]) = (nodeAt(who % PARTIES), nodeAt(((who % PARTIES) + 1) % PARTIES));
        uint256[2] memory before = [uint256(creditOf(nodes[0])), creditOf(nodes[1])];
        settlement.payout(nodes);
        for (uint256 i = 0; i < 2; ++i) {
            paidTo[nodes[i]] += before[i] - creditOf(nodes[i]);
        }
    }

    function withdrawCredit(uint256 who) external {
        address node = nodeAt(who % 2);
        if (creditOf(node) == 0) return;
        vm.prank(node);
        paidTo[node] += settlement.withdrawCredit();
    }

    function passTime(uint32 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, 2 days));
    }

    /// @dev Balances, credits, reserve and fees: all that Settlement owes.
    function owed() external view returns (uint256 sum) {
        for (uint256 i = 0; i < PARTIES; ++i) {
            for (uint256 ledger = 0; ledger < 3; ++ledger) {
                sum += settlement.accountOf(logAt(ledger), payerAt(i)).balance;
            }
            sum += creditOf(nodeAt(i));
        }
        ILogFunds.LogState memory log = settlement.logStateOf(logId);
        sum += uint256(log.reserve) + log.fees + settlement.logStateOf(otherLog).reserve;
    }

    function held() external view returns (uint256) {
        return token.balanceOf(address(settlement));
    }

    function assignedTo(bytes32 log) external view returns (uint256) {
        return settlement.logStateOf(log).assigned;
    }

    function balancesIn(bytes32 log) external view returns (uint256 sum) {
        for (uint256 i = 0; i < PARTIES; ++i) {
            sum += settlement.accountOf(log, payerAt(i)).balance;
        }
    }

    function allBalances() external view returns (uint256 sum) {
        for (uint256 ledger = 0; ledger < 3; ++ledger) {
            sum += this.balancesIn(logAt(ledger));
        }
    }

    function creditAndLifetime(address node) external view returns (uint128 credit, uint128 lifetime) {
        return settlement.creditOf(node);
    }

    function anchoredSize() external view returns (uint64) {
        return anchor.newSize;
    }

    /// @dev The chain holds the anchor of every batch up to the last, and none after it.
    function lastAnchorStands() external view returns (bool) {
        bool none = settlement.anchorOf(logId, anchor.sequence + 1) == 0;
        if (anchor.sequence == 0) return none;
        return none && settlement.anchorOf(logId, anchor.sequence) == keccak256(abi.encode(anchor));
    }

    function payerAt(uint256 index) public pure returns (address) {
        return address(uint160(0xa000 + index));
    }

    function nodeAt(uint256 index) public pure returns (address) {
        return address(uint160(0x10de00 + index));
    }

    function logAt(uint256 index) public view returns (bytes32) {
        return
            index == 0
                ? bytes32(0)
                : index == 1
                    ? logId
                    : otherLog;
    }

    /// @dev Time passes in these tests, so now and then the log needs a new epoch of the same key's log.
    function _renewEpoch(Batch memory batch) private {
        if (block.timestamp < enclaveRegistry.epochOf(logId, epoch).expiresAt) return;
        enclaveKey += 1;
        epoch = activate(logId, enclaveKey);
        batch.epoch = epoch;
    }

    function _countRepaid(address payer, bytes32 from, bytes32 to) private {
        uint96 debt = settlement.debtOf(to, payer);
        uint96 balance = settlement.accountOf(from, payer).balance;
        repaid += debt < balance ? debt : balance;
    }
}

/// @dev What holds after any sequence of calls.
contract SettlementInvariantsTest is Network {
    SettlementHandler private handler;

    function setUp() external {
        handler = new SettlementHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev Debts apart, what Settlement owes is what it holds, to the base unit.
    function invariant_EverythingOwedIsHeld() external view {
        eq(handler.owed(), handler.held());
    }

    function invariant_EveryLedgersSumIsItsBalances() external view {
        for (uint256 i = 0; i < 3; ++i) {
            eq(handler.assignedTo(handler.logAt(i)), handler.balancesIn(handler.logAt(i)));
        }
    }

    function invariant_PayersKeepWhatWasNotDebited() external view {
        uint256 left = handler.deposited() - handler.debited() - handler.repaid() - handler.withdrawn();
        eq(handler.allBalances(), left);
    }

    function invariant_LifetimeCreditIsCreditAndWhatWasPaid() external view {
        for (uint256 i = 0; i < 3; ++i) {
            address node = handler.nodeAt(i);
            (uint128 credit, uint128 lifetime) = handler.creditAndLifetime(node);
            eq(lifetime, credit + handler.paidTo(node));
        }
    }

    function invariant_TheLogOnlyGrows() external view {
        eq(handler.anchoredSize(), handler.leastSize());
        check(handler.lastAnchorStands());
    }
}
