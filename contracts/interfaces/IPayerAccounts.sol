// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlementBase} from "./ISettlementBase.sol";

/// @title What payers do with their money
/// @notice A payer's balance stands in the ledger of exactly one log (or of none, log id zero) and only
/// that log's batches can debit it. Leaving, by withdrawal or by moving to another log, takes
/// `withdrawalDelay` and needs nobody else: neither the log's operator, nor an administrator.
/// Amounts are base units of the settlement token, times seconds of the block clock.
interface IPayerAccounts is ISettlementBase {
    /// @notice A payer's balance in one log's ledger.
    /// @param balance Base units the log's batches may still debit, a pending withdrawal included.
    /// @param requested Base units asked back; 0 when nothing is pending. May exceed `balance`,
    /// but a deposit cuts it to what the balance was before.
    /// @param availableAt Second from which {withdraw} works; 0 when nothing is pending.
    struct Account {
        uint96 balance;
        uint96 requested;
        uint40 availableAt;
    }

    /// @notice What a payer has chosen.
    /// @param logId Log whose batches may debit the payer; zero: none.
    /// @param nextLogId Log the balance moves to, meaningful while `movableAt` is not 0.
    /// @param movableAt Second from which {completeMove} works; 0 when no move is pending.
    /// @param grantEpoch Value that a grant must carry to be valid.
    struct Payer {
        bytes32 logId;
        bytes32 nextLogId;
        uint40 movableAt;
        uint64 grantEpoch;
    }

    /// @notice `amount` was paid by `from` for `payer` into the ledger of `logId`; of it, `debtRepaid`
    /// went to the log's reserve and the rest to the payer's balance.
    event Deposited(
        address indexed payer,
        bytes32 indexed logId,
        address indexed from,
        uint96 amount,
        uint96 debtRepaid
    );
    /// @notice The payer's first assignment: its balance moved from no log to `logId`.
    event Assigned(address indexed payer, bytes32 indexed logId, uint96 balance, uint96 debtRepaid);
    /// @notice From `movableAt` on the payer may move its balance to `nextLogId`. 0: cancelled.
    event MoveRequested(
        address indexed payer,
        bytes32 indexed logId,
        bytes32 indexed nextLogId,
        uint40 movableAt
    );
    /// @notice The payer's balance moved; of it, `debtRepaid` went to the new log's reserve.
    event Moved(
        address indexed payer,
        bytes32 indexed fromLogId,
        bytes32 indexed toLogId,
        uint96 balance,
        uint96 debtRepaid
    );
    /// @notice All grants of `payer` with another `grantEpoch` became invalid.
    event GrantEpochBumped(address indexed payer, uint64 grantEpoch);
    /// @notice `requested` base units can be withdrawn from `availableAt` on. 0 and 0: cancelled.
    event WithdrawalRequested(
        address indexed payer,
        bytes32 indexed logId,
        uint96 requested,
        uint40 availableAt
    );
    /// @notice `amount` left the ledger of `logId` to `to`; nothing is pending any more.
    event Withdrawn(address indexed payer, bytes32 indexed logId, address indexed to, uint96 amount);
    /// @notice A row asked for more than the payer's balance: the reserve laid out `covered`, which the
    /// payer now owes; `uncovered` was found nowhere. Precedes the batch's own event.
    event PayerShort(
        bytes32 indexed logId,
        uint64 indexed sequence,
        address indexed payer,
        uint96 covered,
        uint96 uncovered
    );

    error AlreadyAssigned(address payer, bytes32 logId);
    error NotAssigned(address payer);

    /// @notice Pays `amount` from the caller into the caller's balance; a debt is repaid first.
    function deposit(uint96 amount) external;

    /// @notice Pays `amount` from the caller into `payer`'s balance; a debt is repaid first.
    function depositFor(address payer, uint96 amount) external;

    /// @notice {depositFor} with the caller's ERC-2612 permit for Settlement. A permit that fails is
    /// ignored when the allowance suffices anyway, so nobody can block the deposit by submitting the
    /// permit alone beforehand.
    function depositWithPermit(
        address payer,
        uint96 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Lets the batches of `logId` debit the caller, who must be assigned to none. At once.
    function assign(bytes32 logId) external;

    /// @notice Asks to move the caller's whole balance to `nextLogId` (zero: no log). Repeating
    /// restarts the delay, naming the present log cancels. Until the move, the present log goes on
    /// debiting.
    function requestMove(bytes32 nextLogId) external;

    /// @notice Moves the caller's balance, pending withdrawal included, once the delay is over.
    function completeMove() external;

    /// @notice Revokes every grant the caller has signed so far.
    /// @return grantEpoch The value new grants must carry.
    function bumpGrantEpoch() external returns (uint64 grantEpoch);

    /// @notice Asks for `amount` of the caller's balance back; the maximum of the type asks for all.
    /// Replaces a pending request and restarts the delay; 0 cancels. A request does not expire, and is for
    /// money that is there: what is deposited later can only be asked for anew, so that none leaves
    /// without having waited.
    function requestWithdrawal(uint96 amount) external;

    /// @notice Pays the lesser of the requested amount and the balance to `to`, once the delay is over.
    /// Can't be paused.
    /// @return amount Base units paid out; 0 if batches have used up the balance meanwhile.
    function withdraw(address to) external returns (uint96 amount);

    /// @notice Balance of `payer` in the ledger of `logId`.
    function accountOf(bytes32 logId, address payer) external view returns (Account memory);

    /// @notice Log, pending move and grant epoch of `payer`.
    function payerOf(address payer) external view returns (Payer memory);

    /// @notice What the reserve of `logId` laid out for `payer` and was not repaid.
    function debtOf(bytes32 logId, address payer) external view returns (uint96);
}
