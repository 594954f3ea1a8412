// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlementErrors} from "../interfaces/ISettlementErrors.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title What the parts of Settlement share: the token and the payers' delay
/// @dev Holds no storage, so the parts' layouts follow from their own order.
abstract contract SettlementBase is ISettlementErrors, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    IERC20 internal immutable TOKEN;
    uint32 internal immutable WITHDRAWAL_DELAY;

    constructor(IERC20 token_, uint32 withdrawalDelay) {
        TOKEN = token_;
        WITHDRAWAL_DELAY = withdrawalDelay;
    }

    /// @dev Takes `amount` from the caller; what arrived must be exactly that.
    function _pull(uint96 amount) internal {
        if (amount == 0) revert ZeroAmount();
        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != amount) revert WrongAmountReceived(amount, received);
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

    function _min(uint96 a, uint96 b) internal pure returns (uint96) {
        return a < b ? a : b;
    }
}
