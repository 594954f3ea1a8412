// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TestToken} from "../../../contracts/mocks/TestToken.sol";

/// @dev Keeps one base unit of every transfer between accounts.
contract FeeToken is TestToken {
    function _update(address from, address to, uint256 value) internal override {
        if (from == address(0) || to == address(0)) return super._update(from, to, value);
        super._update(from, address(0), 1);
        super._update(from, to, value - 1);
    }
}

/// @dev Refuses to pay blocked accounts.
contract BlockingToken is TestToken {
    mapping(address account => bool) public blocked;

    error Blocked(address account);

    function setBlocked(address account, bool value) external {
        blocked[account] = value;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (blocked[to]) revert Blocked(to);
        super._update(from, to, value);
    }
}

/// @dev Calls back into `target` while it transfers, and keeps what came of it.
contract ReenteringToken is TestToken {
    address public target;
    bytes public callback;
    bool public succeeded;
    bytes public returned;

    function arm(address target_, bytes calldata callback_) external {
        (target, callback) = (target_, callback_);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (callback.length == 0) return;
        bytes memory data = callback;
        delete callback;
        (succeeded, returned) = target.call(data);
    }
}
