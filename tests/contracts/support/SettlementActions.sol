// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../../contracts/interfaces/IEnclaveRegistry.sol";
import {ILogAnchors} from "../../../contracts/interfaces/ILogAnchors.sol";
import {ILogFunds} from "../../../contracts/interfaces/ILogFunds.sol";
import {ISettlement} from "../../../contracts/interfaces/ISettlement.sol";
import {MerkleLog} from "../../../contracts/libraries/MerkleLog.sol";
import {Batch} from "../../../contracts/libraries/TypedData.sol";
import {IMintable} from "./IMintable.sol";
import {Network} from "./Network.sol";
import {ReferenceTree} from "./ReferenceTree.sol";
import {BlockingToken} from "./Tokens.sol";

/// @dev What a campaign must have seen for its invariants to mean anything.
enum Outcome {
    Deposited,
    DebtRepaid,
    Moved,
    WithdrawnInFull,
    WithdrawnLess, // as batches used the balance meanwhile
    Settled,
    GapCovered,
    ScaledDown,
    RefusedReplay,
    RefusedOverlap,
    RefusedRewrite,
    RefusedPaused,
    RefusedExpired,
    RefusedRevoked,
    RefusedLimit,
    PaidOut,
    PayoutFailed,
    CreditWithdrawn,
    ReserveWithdrawn,
    FeesWithdrawn
}

/// @dev Does what payers, nodes, operator, guardian and strangers may do, in any order, and keeps its own
/// count from the rows it sends. A call is left out only where nothing could come of it; a batch that must be
/// refused is sent all the same, and the reason compared. One log settles, another is there to move to.
abstract contract SettlementActions is Network {
    uint256 public constant PARTIES = 3;

    bytes32 public otherLog;
    mapping(Outcome outcome => uint256) public times;
    mapping(address payer => uint256) public deposited;
    mapping(address payer => uint256) public debited; // from the balance
    mapping(address payer => uint256) public repaid; // of debts
    mapping(address payer => uint256) public withdrawn;
    mapping(address node => uint256) public paidTo;
    mapping(uint256 index => uint256) public timesSettled; // leaf
    uint256 public leavesSettled;

    Batch private _lastBatch;
    uint256 private _epochEnds;
    bool private _revoked;
    uint256 private _pauseEnds;
    mapping(address wallet => bool) private _blocked;

    error WrongOutcome(bytes4 expected, bytes4 found);
    error LeafSettledTwice(uint256 index);

    constructor() {
        deploy(IMintable(address(new BlockingToken())), 250_000); // 25 % of the deposits a day
        _epochEnds = block.timestamp + EPOCH_LIFETIME;
        otherLog = openLog(OPERATOR);
        for (uint256 i = 0; i < 2; ++i) {
            registerNode(i); // the third node stays unregistered
        }
    }

    function deposit(uint256 who, uint96 amount) external {
        address payer = payerAt(who);
        amount = uint96(bound(amount, 1, 1e12));
        _countRepaid(payer, settlement.payerOf(payer).logId, amount);
        deposited[payer] += amount;
        _count(Outcome.Deposited);
        super.deposit(payer, amount);
    }

    function assign(uint256 who, bool other) external {
        address payer = payerAt(who);
        if (settlement.payerOf(payer).logId != 0) return;
        bytes32 to = other && who % 5 == 0 ? otherLog : logId;
        _countRepaid(payer, to, settlement.accountOf(0, payer).balance);
        vm.prank(payer);
        settlement.assign(to);
    }

    function requestMove(uint256 who, uint256 to) external {
        address payer = payerAt(who);
        if (settlement.payerOf(payer).logId == 0) return;
        vm.prank(payer);
        settlement.requestMove(logAt(to));
    }

    function completeMove(uint256 who) external {
        address payer = payerAt(who);
        uint256 movableAt = settlement.payerOf(payer).movableAt;
        if (movableAt == 0 || block.timestamp < movableAt) return;
        (bytes32 from, bytes32 to) = (settlement.payerOf(payer).logId, settlement.payerOf(payer).nextLogId);
        _countRepaid(payer, to, settlement.accountOf(from, payer).balance);
        _count(Outcome.Moved);
        vm.prank(payer);
        settlement.completeMove();
    }

    function requestWithdrawal(uint256 who, uint96 amount) external {
        vm.prank(payerAt(who));
        settlement.requestWithdrawal(uint96(bound(amount, 0, 1e12)));
    }

    function withdraw(uint256 who) external {
        address payer = payerAt(who);
        bytes32 log = settlement.payerOf(payer).logId;
        uint256 availableAt = settlement.accountOf(log, payer).availableAt;
        if (availableAt == 0 || block.timestamp < availableAt) return;
        uint96 requested = settlement.accountOf(log, payer).requested;
        vm.prank(payer);
        uint96 amount = settlement.withdraw(address(0xca54));
        withdrawn[payer] += amount;
        _count(amount == requested ? Outcome.WithdrawnInFull : Outcome.WithdrawnLess);
    }

    function fund(uint96 amount) external {
        fundReserve(uint96(bound(amount, 1, 1e11)));
    }

    function withdrawReserve(uint96 amount) external by(OPERATOR) {
        (, uint40 availableAt) = settlement.reserveRequestOf(logId);
        if (availableAt != 0 && block.timestamp >= availableAt) {
            settlement.withdrawReserve(logId, OPERATOR);
            _count(Outcome.ReserveWithdrawn);
        } else if (availableAt == 0) {
            settlement.requestReserveWithdrawal(logId, uint96(bound(amount, 0, 1e11)));
        }
    }

    function withdrawFees() external by(OPERATOR) {
        if (settlement.logStateOf(logId).fees == 0) return;
        settlement.withdrawFees(logId, OPERATOR);
        _count(Outcome.FeesWithdrawn);
    }

    /// @dev A batch over two payers and two nodes, in balance but often more than the payers have. Now and
    /// then with an epoch that has ended, under a pause, or above the limit.
    function settleBatch(uint96 a, uint96 b, uint256 seed, uint96 split, uint96 fee) external {
        (a, b) = (uint96(bound(a, 1, 5e11)), uint96(bound(b, 1, 5e11)));
        fee = uint96(bound(fee, 0, (uint256(a) + b) / 10));
        uint96 net = a + b - fee;
        split = uint96(bound(split, 1, net - 1));
        if (seed % 3 != 0) _renewEpoch();
        uint256 first = (seed / 3) % 2;
        for (uint256 i = 0; i < (seed / 6) % 3; ++i) {
            leaves.push(keccak256(abi.encode("more", leaves.length)));
        }
        address[2] memory payers = [payerAt(first), payerAt(first + 1)];
        Batch memory batch = nextBatch(
            bytes.concat(row(payers[0], a), row(payers[1], b)),
            bytes.concat(row(nodeAt(first), split), row(nodeAt(first + 1), net - split)),
            fee
        );
        uint256[2] memory taken = [_least(a, balanceOf(payers[0])), _least(b, balanceOf(payers[1]))];
        bytes4 expected = _refusal(taken[0] + taken[1]);
        if (expected != 0) return _refused(batch, expected);

        _countGaps(uint256(a) + b - taken[0] - taken[1]);
        settle(batch);
        _countBatch(batch);
        for (uint256 i = 0; i < 2; ++i) {
            debited[payers[i]] += taken[i];
        }
    }

    /// @dev Batches that would settle a leaf again or rewrite one; the active key has signed them.
    function settleAgain(uint256 kind) external {
        if (anchor.sequence == 0 || _refusal(0) != 0) return;
        if (kind % 3 == 0) {
            Batch memory replayed = _lastBatch;
            (replayed.epoch, replayed.timeMs) = (epoch, uint64(block.timestamp * 1000));
            _refused(replayed, ILogAnchors.WrongSequence.selector);
            _count(Outcome.RefusedReplay);
            return;
        }
        Batch memory batch = nextBatch("", "", 0);
        if (kind % 3 == 1) {
            batch.prevSize = anchor.prevSize;
            batch.prevRoot = ReferenceTree.root(leaves, batch.prevSize);
            _refused(batch, ILogAnchors.AnchorMismatch.selector);
            _count(Outcome.RefusedOverlap);
        } else {
            uint256 index = (kind / 3) % batch.prevSize;
            bytes32 leaf = leaves[index];
            leaves[index] = keccak256("rewritten");
            batch.newRoot = ReferenceTree.root(leaves, batch.newSize);
            _refused(batch, MerkleLog.RootMismatch.selector);
            leaves[index] = leaf;
            _count(Outcome.RefusedRewrite);
        }
    }

    function payout(uint256 who) external {
        address[] memory nodes = new address[](2);
        (nodes[0], nodes[1]) = (nodeAt(who), nodeAt((who % PARTIES) + 1));
        uint256[2] memory before = [uint256(creditOf(nodes[0])), creditOf(nodes[1])];
        settlement.payout(nodes);
        for (uint256 i = 0; i < 2; ++i) {
            address wallet = nodeRegistry.payoutOf(nodes[i]);
            bool pays = wallet != address(0) && !_blocked[wallet];
            eq(creditOf(nodes[i]), pays ? 0 : before[i]);
            if (before[i] == 0 || wallet == address(0)) continue;
            if (pays) paidTo[nodes[i]] += before[i];
            _count(pays ? Outcome.PaidOut : Outcome.PayoutFailed);
        }
    }

    function withdrawCredit(uint256 who) external {
        address node = nodeAt(who);
        address wallet = nodeRegistry.payoutOf(node);
        if (creditOf(node) == 0 || wallet == address(0) || _blocked[wallet]) return;
        vm.prank(node);
        paidTo[node] += settlement.withdrawCredit();
        _count(Outcome.CreditWithdrawn);
    }

    function blockWallet(uint256 who, bool value) external {
        address wallet = nodeRegistry.payoutOf(nodeAt(who % 2));
        _blocked[wallet] = value;
        BlockingToken(address(token)).setBlocked(wallet, value);
    }

    function pause(uint32 duration) external by(GUARDIAN) {
        if (block.timestamp < settlement.nextPauseFrom()) return;
        duration = uint32(bound(duration, 1, 12 hours));
        settlement.pause(duration);
        _pauseEnds = block.timestamp + duration;
    }

    function revokeEpoch(uint256 chance, bool byGuardian) external {
        if (_revoked || chance % 2 != 0) return;
        _revoked = true;
        vm.prank(byGuardian ? GUARDIAN : OPERATOR);
        if (byGuardian) enclaveRegistry.revokeEpoch(logId, epoch);
        else enclaveRegistry.revokeOwnEpoch(logId, epoch);
    }

    function passTime(uint32 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, duration % 2 == 0 ? 45 days : 2 days));
    }

    /// @dev Balances, credits, reserve and fees: all that Settlement owes.
    function owed() external view returns (uint256 sum) {
        for (uint256 i = 0; i < PARTIES; ++i) {
            sum += balancesOf(payerAt(i)) + creditOf(nodeAt(i));
        }
        ILogFunds.LogState memory log = settlement.logStateOf(logId);
        sum += uint256(log.reserve) + log.fees + settlement.logStateOf(otherLog).reserve;
    }

    function owedBySettlement() external view returns (uint256) {
        return settlement.owed();
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

    /// @dev What `payer` could take out once its request has matured, in whichever ledger it stands.
    function withdrawableOf(address payer) external view returns (uint256 sum) {
        for (uint256 i = 0; i < 3; ++i) {
            uint96 balance = settlement.accountOf(logAt(i), payer).balance;
            sum += _least(settlement.accountOf(logAt(i), payer).requested, balance);
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

    function balancesOf(address payer) public view returns (uint256 sum) {
        for (uint256 i = 0; i < 3; ++i) {
            sum += settlement.accountOf(logAt(i), payer).balance;
        }
    }

    function payerAt(uint256 index) public pure returns (address) {
        return address(uint160(0xa000 + (index % PARTIES)));
    }

    function nodeAt(uint256 index) public pure returns (address) {
        return address(uint160(0x10de00 + (index % PARTIES)));
    }

    function logAt(uint256 index) public view returns (bytes32) {
        if (index % 3 == 0) return 0;
        return index % 3 == 1 ? logId : otherLog;
    }

    /// @dev Why a batch that takes `taken` from deposits must be refused now; 0: it must settle.
    function _refusal(uint256 taken) private view returns (bytes4) {
        if (block.timestamp < _pauseEnds) return ISettlement.SettlementPaused.selector;
        if (_revoked) return IEnclaveRegistry.NoActiveEpoch.selector;
        if (block.timestamp >= _epochEnds) return IEnclaveRegistry.EpochExpired.selector;
        return taken > settlement.debitableNow(logId) ? ILogFunds.DebitLimitExceeded.selector : bytes4(0);
    }

    function _refused(Batch memory batch, bytes4 expected) private {
        bytes memory signed = signature(enclaveKey, digestOf(batch));
        bytes32[] memory proof = consistencyOf(batch);
        try settlement.settle(batch, signed, proof, lastAnchor()) {
            revert WrongOutcome(expected, 0);
        } catch (bytes memory reason) {
            if (bytes4(reason) != expected) revert WrongOutcome(expected, bytes4(reason));
        }
        if (expected == ISettlement.SettlementPaused.selector) _count(Outcome.RefusedPaused);
        if (expected == IEnclaveRegistry.NoActiveEpoch.selector) _count(Outcome.RefusedRevoked);
        if (expected == IEnclaveRegistry.EpochExpired.selector) _count(Outcome.RefusedExpired);
        if (expected == ILogFunds.DebitLimitExceeded.selector) _count(Outcome.RefusedLimit);
    }

    function _countGaps(uint256 gap) private {
        uint256 reserve = settlement.logStateOf(logId).reserve;
        if (gap != 0 && reserve != 0) _count(Outcome.GapCovered);
        if (gap > reserve) _count(Outcome.ScaledDown);
    }

    function _countBatch(Batch memory batch) private {
        _lastBatch = batch;
        _count(Outcome.Settled);
        for (uint256 i = batch.prevSize; i < batch.newSize; ++i) {
            if (++timesSettled[i] != 1) revert LeafSettledTwice(i);
        }
        leavesSettled += batch.newSize - batch.prevSize;
    }

    function _countRepaid(address payer, bytes32 log, uint256 incoming) private {
        uint256 amount = _least(settlement.debtOf(log, payer), incoming);
        if (amount == 0) return;
        repaid[payer] += amount;
        _count(Outcome.DebtRepaid);
    }

    function _count(Outcome outcome) private {
        times[outcome] += 1;
    }

    /// @dev The operator starts a new epoch where the last one has ended.
    function _renewEpoch() private {
        if (!_revoked && block.timestamp < _epochEnds) return;
        enclaveKey += 1;
        epoch = activate(logId, enclaveKey);
        (_revoked, _epochEnds) = (false, block.timestamp + EPOCH_LIFETIME);
    }

    function _least(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }
}
