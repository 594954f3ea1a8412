// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Batch} from "../libraries/TypedData.sol";
import {IEnclaveRegistry} from "./IEnclaveRegistry.sol";
import {IGatewayRegistry} from "./IGatewayRegistry.sol";
import {ILogAnchors} from "./ILogAnchors.sol";
import {ILogFunds} from "./ILogFunds.sol";
import {IModelRegistry} from "./IModelRegistry.sol";
import {INodeCredits} from "./INodeCredits.sol";
import {INodeRegistry} from "./INodeRegistry.sol";
import {IObjectiveFaults} from "./IObjectiveFaults.sol";
import {IPayerAccounts} from "./IPayerAccounts.sol";
import {IReceiptLog} from "./IReceiptLog.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Settlement: deposits, batches, credits
/// @notice Holds the money of all parties and moves it only by what an active, attested epoch key of a
/// log signed, or by what a party decides about its own. Also the `verifyingContract` of the one EIP-712
/// domain that every contract and every signed type of the deployment uses.
///
/// Deployment: the other contracts come first and are given this contract's future address; the
/// constructor refuses if one of them was given another. From then on this address leads to all the rest.
interface ISettlement is ILogAnchors, ILogFunds, IPayerAccounts, INodeCredits {
    /// @notice Durations in seconds. The first four strictly ascending, the first two together below the third, so that a payer who leaves is out
    /// before any administrator's change takes effect, and outlasts a pause; the withdrawal delay below
    /// `pauseInterval`, so that who leaves meets one pause at most, and at most 30 days; a limiter's
    /// window no shorter than a pause. Unbonding and changes of payout wallets take no less than the
    /// withdrawal delay.
    /// @param unsettledMax Age of the oldest unsettled receipt at which enclaves stop awarding.
    /// @param pauseMax Longest pause of settlement.
    /// @param withdrawalDelay From request to withdrawal or move, for payers and reserves.
    /// @param adminDelay From an administrator's proposal to its effect.
    /// @param pauseInterval Least time from the start of one pause to the start of the next.
    /// @param limiterWindow Time in which a full debit limiter drains, see {ILogFunds}.
    struct Times {
        uint32 unsettledMax;
        uint32 pauseMax;
        uint32 withdrawalDelay;
        uint32 adminDelay;
        uint32 pauseInterval;
        uint32 limiterWindow;
    }

    /// @notice What the constructor is given.
    /// @param authority AccessManager that knows administrators and guardian.
    /// @param faults The one contract that may slash reserves.
    /// @param debitLimitPpm Share of a log's deposits that the limiter lets through at once.
    struct Config {
        IERC20 token;
        address authority;
        IReceiptLog receiptLog;
        IEnclaveRegistry enclaveRegistry;
        INodeRegistry nodeRegistry;
        IGatewayRegistry gatewayRegistry;
        IModelRegistry modelRegistry;
        IObjectiveFaults faults;
        uint32 debitLimitPpm;
        Times times;
    }

    /// @notice A batch took effect. Its rows are in the transaction's calldata, or in any copy of the
    /// signed batch, and are proven by `batchDigest`.
    /// @param debited Base units taken from deposits.
    /// @param fees Base units added to the log's fees.
    event BatchSettled(
        bytes32 indexed logId,
        uint64 indexed sequence,
        uint64 prevSize,
        uint64 newSize,
        bytes32 newRoot,
        bytes32 batchDigest,
        uint96 debited,
        uint96 fees
    );
    /// @notice The reserve was short too: every credit and the fee became
    /// `floor(amount * backed / due)`, and what rounding left stayed in the reserve.
    event BatchScaledDown(bytes32 indexed logId, uint64 indexed sequence, uint256 due, uint256 backed);
    /// @notice No batch settles before `until`.
    event Paused(uint40 until, uint40 nextPauseFrom);
    event Unpaused();

    error InvalidTimes(Times times);
    /// @notice The token has no code, or not six decimals.
    error UnsuitableToken(address token);
    /// @notice `target` was deployed for another Settlement, chain, or with too short a delay.
    error WrongWiring(address target);
    error SettlementPaused(uint256 until);
    error PausedTooRecently(uint256 nextPauseFrom);
    error PauseTooLong(uint32 duration, uint32 pauseMax);
    /// @notice The batch names another epoch than the active one.
    error WrongEpoch(bytes32 logId, uint64 active, uint64 given);
    /// @notice The batch was signed by `signer`, not by the active epoch's `key`.
    error WrongSigner(address key, address signer);
    /// @notice The sum of debits is not the sum of credits and fees.
    error UnbalancedBatch(uint256 debits, uint256 credits, uint256 fees);
    error FeeTooHigh(uint256 fees, uint256 debits);

    /// @notice Settles the next batch of a log; anyone may submit.
    ///
    /// Checks, in this order: not paused, next sequence, at least one leaf, last anchor, consistency of
    /// the trees, signature by the active epoch's key, rows and their sums, fee cap, debit limit.
    /// A payer that is short blocks nothing: the reserve pays, else all credits shrink by one factor.
    ///
    /// Does not prove that the rows equal the receipts' sums: the enclave signs that, and anyone can
    /// recompute it from the log.
    /// @param batch What was signed. Rows strictly ascending by address and without zero amounts.
    /// @param signature 65 bytes `r, s, v` by the active epoch's key.
    /// @param consistencyProof RFC 9162 proof from (`prevSize`, `prevRoot`) to (`newSize`, `newRoot`);
    /// empty when `prevSize` is 0. Consumed exactly.
    /// @param last What the last anchor holds beside the batch's own words.
    function settle(
        Batch calldata batch,
        bytes calldata signature,
        bytes32[] calldata consistencyProof,
        LastAnchor calldata last
    ) external;

    /// @notice Stops batches, and nothing else, for `duration` seconds; by the guardian.
    function pause(uint32 duration) external;

    /// @notice Ends a pause early; by the guardian.
    function unpause() external;

    /// @notice Second from which batches settle; in the past when settlement is not paused.
    function pausedUntil() external view returns (uint40);

    /// @notice Second from which the guardian may pause again.
    function nextPauseFrom() external view returns (uint40);

    /// @notice Largest share of a batch's debits that may be fees, in basis points.
    function MAX_FEE_BPS() external view returns (uint96);

    /// @notice EIP-712 separator of the whole deployment.
    function domainSeparator() external view returns (bytes32);

    function times() external view returns (Times memory);
    function token() external view returns (IERC20);
    function receiptLog() external view returns (IReceiptLog);
    function enclaveRegistry() external view returns (IEnclaveRegistry);
    function nodeRegistry() external view returns (INodeRegistry);
    function gatewayRegistry() external view returns (IGatewayRegistry);
    function modelRegistry() external view returns (IModelRegistry);
    function faults() external view returns (IObjectiveFaults);
}
