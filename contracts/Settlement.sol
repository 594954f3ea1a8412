// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "./interfaces/IEnclaveRegistry.sol";
import {IGatewayRegistry} from "./interfaces/IGatewayRegistry.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IObjectiveFaults} from "./interfaces/IObjectiveFaults.sol";
import {IReceiptLog} from "./interfaces/IReceiptLog.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {Batch, TypedData} from "./libraries/TypedData.sol";
import {LogAnchors} from "./settlement/LogAnchors.sol";
import {LogFunds} from "./settlement/LogFunds.sol";
import {NodeCredits} from "./settlement/NodeCredits.sol";
import {PayerAccounts} from "./settlement/PayerAccounts.sol";
import {SettlementBase} from "./settlement/SettlementBase.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Settlement
/// @dev Storage layout, in order of inheritance:
///   0  anchors          log id, sequence → keccak256(abi.encode(Anchor))             LogAnchors
///   1  owed             sum of all claims on the token                                SettlementBase
///   2  authority        AccessManager                                                AccessManaged
///   3  controls         pause and debit limit                                        LogFunds
///   4  ledgers          log id → one slot of Ledger                                  LogFunds
///   5  reserves         log id → one slot of Reserve                                 LogFunds
///   6  accounts         log id, payer → one slot of Account                          PayerAccounts
///   7  debts            log id, payer → amount                                       PayerAccounts
///   8  payers           payer → log id; next log id; movable at, grant epoch         PayerAccounts
///   9  credits          node → credit, lifetime                                      NodeCredits
contract Settlement is LogAnchors, PayerAccounts, NodeCredits, ISettlement {
    /// @inheritdoc ISettlement
    uint96 public constant MAX_FEE_BPS = 1_000;
    uint96 private constant BPS = 10_000;
    uint8 private constant DECIMALS = 6;
    uint32 private constant LONGEST_WITHDRAWAL_DELAY = 30 days;

    /// @inheritdoc ISettlement
    bytes32 public immutable domainSeparator;
    /// @inheritdoc ISettlement
    IEnclaveRegistry public immutable enclaveRegistry;
    /// @inheritdoc ISettlement
    IGatewayRegistry public immutable gatewayRegistry;
    /// @inheritdoc ISettlement
    IModelRegistry public immutable modelRegistry;

    uint32 private immutable UNSETTLED_MAX;
    uint32 private immutable PAUSE_MAX;
    uint32 private immutable PAUSE_INTERVAL;

    constructor(
        Config memory config
    )
        SettlementBase(config.token, config.times.withdrawalDelay)
        AccessManaged(config.authority)
        LogFunds(
            config.receiptLog,
            address(config.faults),
            config.times.adminDelay,
            config.times.limiterWindow,
            config.debitLimitPpm
        )
        NodeCredits(config.nodeRegistry)
    {
        domainSeparator = TypedData.domainSeparator(address(this));
        enclaveRegistry = config.enclaveRegistry;
        gatewayRegistry = config.gatewayRegistry;
        modelRegistry = config.modelRegistry;
        UNSETTLED_MAX = config.times.unsettledMax;
        PAUSE_MAX = config.times.pauseMax;
        PAUSE_INTERVAL = config.times.pauseInterval;
        _checkTimes(config.times);
        _checkWiring(config);
    }

    /// @inheritdoc ISettlement
    function settle(
        Batch calldata batch,
        bytes calldata signature,
        bytes32[] calldata consistencyProof,
        LastAnchor calldata last
    ) external {
        Controls memory controls = _controls;
        if (block.timestamp < controls.pausedUntil) revert SettlementPaused(controls.pausedUntil);
        Ledger memory ledger = _ledgers[batch.logId];
        _checkContinues(batch, ledger.sequence, consistencyProof, last);
        bytes32 batchDigest = TypedData.digest(domainSeparator, TypedData.hash(batch));
        _checkSigned(batch, batchDigest, signature);

        (uint96 taken, uint96 fees) = _moveMoney(batch);
        _takeFromDeposits(ledger, controls, batch.logId, taken);
        ledger.fees += fees;
        ++ledger.sequence;
        _store(batch.logId, ledger);
        _setAnchor(batch, batchDigest);
        emit BatchSettled(
            batch.logId,
            batch.sequence,
            batch.prevSize,
            batch.newSize,
            batch.newRoot,
            batchDigest,
            taken,
            fees
        );
    }

    /// @inheritdoc ISettlement
    function pause(uint32 duration) external restricted {
        if (duration > PAUSE_MAX) revert PauseTooLong(duration, PAUSE_MAX);
        if (block.timestamp < _controls.nextPauseFrom) revert PausedTooRecently(_controls.nextPauseFrom);
        uint40 until = uint40(block.timestamp) + duration;
        uint40 nextFrom = uint40(block.timestamp) + PAUSE_INTERVAL;
        (_controls.pausedUntil, _controls.nextPauseFrom) = (until, nextFrom);
        emit Paused(until, nextFrom);
    }

    /// @inheritdoc ISettlement
    function unpause() external restricted {
        _controls.pausedUntil = 0;
        emit Unpaused();
    }

    /// @inheritdoc ISettlement
    function pausedUntil() external view returns (uint40) {
        return _controls.pausedUntil;
    }

    /// @inheritdoc ISettlement
    function nextPauseFrom() external view returns (uint40) {
        return _controls.nextPauseFrom;
    }

    /// @inheritdoc ISettlement
    function times() external view returns (Times memory) {
        return
            Times({
                unsettledMax: UNSETTLED_MAX,
                pauseMax: PAUSE_MAX,
                withdrawalDelay: WITHDRAWAL_DELAY,
                adminDelay: ADMIN_DELAY,
                pauseInterval: PAUSE_INTERVAL,
                limiterWindow: LIMITER_WINDOW
            });
    }

    /// @inheritdoc ISettlement
    function token() external view returns (IERC20) {
        return TOKEN;
    }

    /// @inheritdoc ISettlement
    function receiptLog() external view returns (IReceiptLog) {
        return RECEIPT_LOG;
    }

    /// @inheritdoc ISettlement
    function nodeRegistry() external view returns (INodeRegistry) {
        return NODE_REGISTRY;
    }

    /// @inheritdoc ISettlement
    function faults() external view returns (IObjectiveFaults) {
        return IObjectiveFaults(FAULTS);
    }

    /// @dev Applies the rows: payers first, then nodes with what is backed. Leaves to the caller what stands
    /// in the ledger: `taken` from the deposits, within the limit, and `fees`.
    /// @return taken Taken from balances.
    /// @return fees For the log's operator.
    function _moveMoney(Batch calldata batch) private returns (uint96 taken, uint96 fees) {
        Debits memory debits = _debit(batch);
        uint256 backed = debits.due - debits.uncovered;
        (uint256 total, uint256 credited) = _credit(batch.credits, backed, debits.due);
        if (debits.due != total + batch.fees) revert UnbalancedBatch(debits.due, total, batch.fees);
        if (uint256(batch.fees) * BPS > debits.due * MAX_FEE_BPS) revert FeeTooHigh(batch.fees, debits.due);

        taken = debits.taken;
        fees = batch.fees;
        if (debits.uncovered != 0) {
            fees = uint96((fees * backed) / debits.due);
            _reserves[batch.logId].amount += uint96(backed - credited - fees);
            emit BatchScaledDown(batch.logId, batch.sequence, debits.due, backed);
        }
    }

    function _checkSigned(Batch calldata batch, bytes32 batchDigest, bytes calldata signature) private view {
        (address key, uint64 epoch) = enclaveRegistry.activeEpochOf(batch.logId);
        if (batch.epoch != epoch) revert WrongEpoch(batch.logId, epoch, batch.epoch);
        address signer = ECDSA.recoverCalldata(batchDigest, signature);
        if (signer != key) revert WrongSigner(key, signer);
    }

    function _checkTimes(Times memory t) private pure {
        bool ordered =
            0 < t.unsettledMax
                && t.unsettledMax < t.pauseMax
                && uint256(t.unsettledMax) + t.pauseMax < t.withdrawalDelay
                && t.withdrawalDelay < t.adminDelay;
        bool bounded =
            t.withdrawalDelay <= LONGEST_WITHDRAWAL_DELAY
                && t.withdrawalDelay < t.pauseInterval
                && t.pauseMax <= t.limiterWindow;
        if (!ordered || !bounded) revert InvalidTimes(t);
    }

    function _checkWiring(Config memory config) private view {
        address token_ = address(config.token);
        if (token_.code.length == 0 || IERC20Metadata(token_).decimals() != DECIMALS) {
            revert UnsuitableToken(token_);
        }
        bytes32 separator = domainSeparator;
        IReceiptLog log = config.receiptLog;
        if (log.domainSeparator() != separator || address(log.settlement()) != address(this)) {
            revert WrongWiring(address(log));
        }
        IEnclaveRegistry enclaves = config.enclaveRegistry;
        bool fits =
            enclaves.domainSeparator() == separator
                && address(enclaves.receiptLog()) == address(log)
                && enclaves.delay() >= config.times.adminDelay;
        if (!fits) revert WrongWiring(address(enclaves));
        INodeRegistry nodes = config.nodeRegistry;
        fits =
            nodes.domainSeparator() == separator
            && address(nodes.token()) == address(config.token)
            && nodes.unbondingDelay() >= config.times.withdrawalDelay
            && nodes.payoutDelay() >= config.times.withdrawalDelay;
        if (!fits) revert WrongWiring(address(nodes));
        if (config.gatewayRegistry.domainSeparator() != separator) {
            revert WrongWiring(address(config.gatewayRegistry));
        }
        IObjectiveFaults judge = config.faults;
        fits =
            judge.domainSeparator() == separator
            && judge.settlement() == address(this)
            && address(judge.nodeRegistry()) == address(nodes)
            && address(judge.enclaveRegistry()) == address(enclaves);
        if (!fits) revert WrongWiring(address(judge));
    }
}
