// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlementBase} from "./ISettlementBase.sol";

/// @title Money of a log: reserve, fees, and the limit on what its batches may take
/// @notice The reserve is the operator's and covers payers that are short. What a log's batches take from
/// its deposits is limited, so that a stolen epoch key can't take everything before payers leave.
///
/// The limit. A batch that takes `d` of the `a` base units assigned to its log takes the share `d / a`. Over
/// any interval of `T` seconds the shares of a log's batches add up to at most `s * (1 + T / W)`, where `s`
/// is the debit limit (the highest in force in the interval) and `W` the limiter's window: `s` in one
/// moment, twice `s` in a window, four times `s` in three windows. As each share is of what was left, no
/// more than that part goes of deposits that stand there all the time. At 100 % there is no limit.
///
/// What it is not. It is one figure per log, not per payer: a batch within the limit may empty one account.
/// And it counts everything assigned to the log alike: whoever holds a stolen key and assigns `x` of its own
/// raises what the same share is worth by `s * x`, for as long as `x` stays.
/// @dev A bucket with time for water: a share `p` fills `W * p / s` seconds, rounded up, it holds `W`, and a
/// second drains in a second. Kept as the second at which it is empty.
interface ILogFunds is ISettlementBase {
    /// @notice State of a log's ledger.
    /// @param sequence Number of the last settled batch; 0: none.
    /// @param assigned Sum of the balances in the log's ledger.
    /// @param drainedAt Second at which the limiter is empty; in the past: it is. A window ahead: it is full.
    /// @param reserve The operator's money that covers payers who are short.
    /// @param fees The operator's earnings, not yet withdrawn.
    struct LogState {
        uint64 sequence;
        uint96 assigned;
        uint40 drainedAt;
        uint96 reserve;
        uint96 fees;
    }

    event ReserveFunded(bytes32 indexed logId, address indexed from, uint96 amount);
    /// @notice `requested` of the reserve can be withdrawn from `availableAt` on. 0 and 0: cancelled.
    event ReserveWithdrawalRequested(bytes32 indexed logId, uint96 requested, uint40 availableAt);
    event ReserveWithdrawn(bytes32 indexed logId, address indexed to, uint96 amount);
    /// @notice The whole reserve went to the caller of {slashReserve}, and a waiting withdrawal ended.
    event ReserveSlashed(bytes32 indexed logId, uint96 amount);
    event FeesWithdrawn(bytes32 indexed logId, address indexed to, uint96 amount);
    /// @notice The limit is `limitPpm` of the assigned deposits, from `effectiveAt` on.
    event DebitLimitSet(uint32 limitPpm, uint40 effectiveAt);

    error NotOperator(bytes32 logId, address caller);
    error NotFaults(address caller);
    /// @notice The batch would take `debited` from deposits, more than `debitable` now.
    error DebitLimitExceeded(bytes32 logId, uint256 debited, uint256 debitable);
    error InvalidDebitLimit(uint32 limitPpm);

    /// @notice Adds `amount` from the caller to the reserve of `logId`. A request that waits is cut to what the
    /// reserve was before.
    function fundReserve(bytes32 logId, uint96 amount) external;

    /// @notice Asks for `amount` of the reserve back, by the log's operator; as with payers, the
    /// withdrawal delay applies, a new request replaces the old one and 0 cancels.
    function requestReserveWithdrawal(bytes32 logId, uint96 amount) external;

    /// @notice Pays the lesser of the requested amount and the reserve to `to`, by the log's operator.
    function withdrawReserve(bytes32 logId, address to) external returns (uint96 amount);

    /// @notice Pays the whole reserve of `logId` to the caller, also while a withdrawal waits, and ends that
    /// withdrawal; by the contract that decides objective faults. Without a reserve nothing happens.
    /// @dev A reserve secures only what is not asked for: a withdrawal that matured can be made before this.
    function slashReserve(bytes32 logId) external returns (uint96 amount);

    /// @notice Pays all fees to `to`, by the log's operator.
    function withdrawFees(bytes32 logId, address to) external returns (uint96 amount);

    /// @notice Sets the share of the assigned deposits, in parts per million, that batches may take at once,
    /// and again in each window.
    /// Lowering works at once, raising after the admin delay; a new call replaces a waiting one. At least
    /// 1 %, so that no administrator can stop settlement with it. By an administrator.
    function setDebitLimit(uint32 limitPpm) external;

    /// @notice Ledger of `logId`.
    function logStateOf(bytes32 logId) external view returns (LogState memory);

    /// @notice Pending withdrawal from the reserve of `logId`; zeros if none.
    function reserveRequestOf(bytes32 logId) external view returns (uint96 requested, uint40 availableAt);

    /// @notice The share in force now, in parts per million.
    function debitLimit() external view returns (uint32 limitPpm);

    /// @notice The higher share that waits, and from when it is in force; zeros if none waits.
    function pendingDebitLimit() external view returns (uint32 limitPpm, uint40 effectiveAt);

    /// @notice Base units that batches of `logId` may still take from deposits now.
    function debitableNow(bytes32 logId) external view returns (uint256);
}
