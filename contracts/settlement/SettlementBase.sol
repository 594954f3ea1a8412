// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlementBase} from "../interfaces/ISettlementBase.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title What all parts that hold tokens share: the token, what is owed of it, and a delay
abstract contract SettlementBase is ISettlementBase, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    IERC20 internal immutable TOKEN;
    uint32 internal immutable WITHDRAWAL_DELAY;

    /// @dev Sum of everybody's claims. Batches move claims between parties and leave the sum as it is.
    uint256 private _owed;

    constructor(IERC20 token_, uint32 withdrawalDelay) {
        TOKEN = token_;
        WITHDRAWAL_DELAY = withdrawalDelay;
    }

    /// @inheritdoc ISettlementBase
    function owed() external view returns (uint256) {
        return _owed;
    }

    /// @dev Takes `amount` from the caller; what arrived must be exactly that. Not while tokens are missing:
    /// the newcomer would pay for those who were there before.
    function _pull(uint96 amount) internal {
        if (amount == 0) revert ZeroAmount();
        uint256 before = TOKEN.balanceOf(address(this));
        if (before < _owed) revert TokensMissing(_owed, before);
        _owed += amount;
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != amount) revert WrongAmountReceived(amount, received);
    }

    /// @dev Ends a claim of `amount` and pays it to `to`; the caller has taken it off the party's books.
    function _push(address to, uint256 amount) internal returns (uint256 paid) {
        paid = _payable(amount);
        _owed -= amount;
        TOKEN.safeTransfer(to, paid);
    }

    /// @dev {_push} that leaves the claim where the token refuses.
    function _tryPush(address to, uint256 amount) internal returns (bool success) {
        uint256 paid = _payable(amount);
        _owed -= amount;
        success = TOKEN.trySafeTransfer(to, paid);
        if (!success) _owed += amount;
    }

    /// @dev The second from which something asked for now is available.
    function _afterDelay() internal view returns (uint40) {
        return uint40(block.timestamp) + WITHDRAWAL_DELAY;
    }

    /// @dev Reverts unless something was requested and `availableAt` has come.
    function _checkMatured(uint40 availableAt) internal view {
        if (availableAt == 0) revert NothingRequested();
        if (block.timestamp < availableAt) revert TooEarly(availableAt, block.timestamp);
    }

    /// @dev All of `amount`, or where the token took tokens away by itself, its share of what is left.
    function _payable(uint256 amount) private view returns (uint256) {
        uint256 held = TOKEN.balanceOf(address(this));
        return held < _owed ? Math.mulDiv(amount, held, _owed) : amount;
    }

    function _min(uint96 a, uint96 b) internal pure returns (uint96) {
        return a < b ? a : b;
    }
}
