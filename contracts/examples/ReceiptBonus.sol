// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogAnchors} from "../interfaces/ILogAnchors.sol";
import {IReceiptLog} from "../interfaces/IReceiptLog.sol";
import {Receipt} from "../libraries/TypedData.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title Example: a bonus for every settled receipt
/// @notice A payer promises a node a bonus for each of its own requests that the node answered with at
/// least so many tokens. The money lies here; a settled receipt releases it, once, to the node. Nobody is
/// asked: {IReceiptLog.settledIn} says from the chain alone whether the receipt was settled.
///
/// What an integrator should copy:
/// - fix the log beforehand. Anybody can open one, and a log's word is as good as its epochs' code;
/// - remember what was paid by (gateway, job id), of which a log has one receipt, and not by index, proof
///   or anchor: the caller chooses those;
/// - reward only what the one who pays has authorised. A receipt shows that `payer` was charged under its
///   own grant; gateways and nodes of strangers can serve each other, so an offer for receipts of any
///   payer would be collected by whoever talks to himself;
/// - bring the anchor's words: they are in the event of the batch, and checked against one slot.
///
/// Not audited, not deployed by anybody, and not part of the system.
contract ReceiptBonus {
    using SafeERC20 for IERC20;

    /// @notice What is paid for. `left` is what has not been paid yet.
    struct Offer {
        address payer;
        uint96 bonus;
        address node;
        uint96 left;
        bytes32 logId;
        uint32 minOutputTokens;
        uint40 endsAt;
    }

    /// @notice Token of all bonuses; must move exactly what it is told to.
    IERC20 public immutable token;
    /// @notice Where settlement of receipts is asked for.
    IReceiptLog public immutable receiptLog;

    /// @notice Number of offers made; they count from 1.
    uint256 public offerCount;
    mapping(uint256 offer => Offer) private _offers;
    mapping(uint256 offer => mapping(bytes32 job => bool)) private _paid;

    event Offered(uint256 indexed offer, address indexed payer, address indexed node, uint96 funds);
    event BonusPaid(uint256 indexed offer, bytes16 indexed jobId, uint64 sequence, uint96 bonus);
    event Ended(uint256 indexed offer, uint96 returned);

    error WrongPayer(address expected, address given);
    error TooFewTokens(uint256 least, uint256 given);
    error AlreadyPaid(uint256 offer, address gateway, bytes16 jobId);
    error Exhausted(uint256 offer, uint96 bonus, uint96 left);
    error NotEndedYet(uint256 offer, uint256 endsAt);

    constructor(IERC20 token_, IReceiptLog receiptLog_) {
        token = token_;
        receiptLog = receiptLog_;
    }

    /// @notice Offers `node` `bonus` for each settled receipt of the caller in `logId`, up to `funds`.
    /// @param minOutputTokens Least number of the node's output tokens that the receipt must bill.
    /// @param endsAt Second from which the caller may take back what is left.
    function offer(
        address node,
        bytes32 logId,
        uint96 bonus,
        uint96 funds,
        uint32 minOutputTokens,
        uint40 endsAt
    ) external returns (uint256 number) {
        number = ++offerCount;
        _offers[number] = Offer(msg.sender, bonus, node, funds, logId, minOutputTokens, endsAt);
        emit Offered(number, msg.sender, node, funds);
        token.safeTransferFrom(msg.sender, address(this), funds);
    }

    /// @notice Pays offer `number`'s bonus for `receipt` to its node; anybody may call.
    /// @param index Position of the receipt in the log.
    /// @param inclusionProof Proof of that leaf in the tree of `anchor.newSize` leaves.
    /// @param anchor Words of the batch that settled the receipt.
    function claim(
        uint256 number,
        Receipt calldata receipt,
        uint64 index,
        bytes32[] calldata inclusionProof,
        ILogAnchors.Anchor calldata anchor
    ) external {
        Offer storage promised = _offers[number];
        if (anchor.logId != promised.logId) revert IReceiptLog.WrongLog(promised.logId, anchor.logId);
        _checkEarned(promised, receipt);
        // Reverts unless exactly this receipt is leaf `index` of that log and settled by that batch.
        uint64 sequence = receiptLog.settledIn(receipt, index, inclusionProof, anchor);
        _take(number, promised, receipt.head.gateway, receipt.head.jobId);
        emit BonusPaid(number, receipt.head.jobId, sequence, promised.bonus);
        token.safeTransfer(promised.node, promised.bonus);
    }

    /// @notice Returns what is left of offer `number` to its payer, once it has ended; anybody may call.
    function end(uint256 number) external {
        Offer storage promised = _offers[number];
        if (block.timestamp < promised.endsAt) revert NotEndedYet(number, promised.endsAt);
        uint96 left = promised.left;
        promised.left = 0;
        emit Ended(number, left);
        token.safeTransfer(promised.payer, left);
    }

    /// @notice Offer `number`; all zero if there is none.
    function offerOf(uint256 number) external view returns (Offer memory) {
        return _offers[number];
    }

    function _take(uint256 number, Offer storage promised, address gateway, bytes16 jobId) private {
        bytes32 job = keccak256(abi.encode(gateway, jobId));
        if (_paid[number][job]) revert AlreadyPaid(number, gateway, jobId);
        (uint96 bonus, uint96 left) = (promised.bonus, promised.left);
        if (left < bonus) revert Exhausted(number, bonus, left);
        _paid[number][job] = true;
        promised.left = left - bonus;
    }

    /// @dev A job may have been served in pieces by several nodes, or by one more than once.
    function _checkEarned(Offer storage promised, Receipt calldata receipt) private view {
        address payer = promised.payer;
        if (receipt.head.payer != payer) revert WrongPayer(payer, receipt.head.payer);
        uint256 tokens = 0;
        for (uint256 i = 0; i < receipt.segments.length; ++i) {
            if (receipt.segments[i].node == promised.node) tokens += receipt.segments[i].outputBilled;
        }
        if (tokens < promised.minOutputTokens) revert TooFewTokens(promised.minOutputTokens, tokens);
    }
}
