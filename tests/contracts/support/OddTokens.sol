// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TestToken} from "../../../contracts/mocks/TestToken.sol";

/// @dev Says `false` instead of reverting while it refuses, as some old tokens do.
contract FalseToken is TestToken {
    bool public refusing;

    function setRefusing(bool value) external {
        refusing = value;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return !refusing && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !refusing && super.transferFrom(from, to, value);
    }
}

/// @dev Says `true` and moves nothing.
contract LyingToken is TestToken {
    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return true;
    }
}

/// @dev Moves tokens and returns nothing.
contract SilentToken is TestToken {
    function transfer(address to, uint256 value) public override returns (bool) {
        super.transfer(to, value);
        _returnNothing();
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        super.transferFrom(from, to, value);
        _returnNothing();
    }

    function _returnNothing() private pure {
        assembly ("memory-safe") {
            return(0, 0)
        }
    }
}

/// @dev Balances are shares of a supply that somebody changes: `percent` of what was minted and moved.
contract RebasingToken is TestToken {
    uint256 public percent = 100;

    function rebase(uint256 percent_) external {
        percent = percent_;
    }

    function balanceOf(address account) public view override returns (uint256) {
        return (super.balanceOf(account) * percent) / 100;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, (value * 100) / percent);
    }
}

/// @dev What a payer or payee with code is told by a token with hooks.
interface IHooked {
    function onTokens() external;
}

/// @dev Calls sender and receiver if they have code, before and after the move, as ERC-777 does. Can end a
/// transfer with `false` after the hook ran, and calls its owner's hook from permit() too.
contract HookedToken is TestToken {
    bool public refusing;

    function setRefusing(bool value) external {
        refusing = value;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        if (!refusing) return super.transfer(to, value);
        _tell(to);
        return false;
    }

    function permit(
        address owner,
        address spender,
        uint256 value,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) public override {
        _tell(owner);
        super.permit(owner, spender, value, deadline, v, r, s);
    }

    function _update(address from, address to, uint256 value) internal override {
        _tell(from);
        super._update(from, to, value);
        _tell(to);
    }

    function _tell(address party) private {
        if (party.code.length == 0) return;
        // Settlement has no hook, and nobody's hook may fail the transfer here.
        (bool told, ) = party.call(abi.encodeCall(IHooked.onTokens, ()));
        told;
    }
}

/// @dev A payer, node or operator with code. Forwards what the test wants done in its name, and calls back
/// once from the first hook after `arm`.
contract Reenterer is IHooked {
    address private _target;
    bytes private _callback;
    bool public called;
    bool public succeeded;
    bytes public returned;

    function arm(address target, bytes calldata callback) external {
        (_target, _callback) = (target, callback);
        (called, succeeded, returned) = (false, false, "");
    }

    function forward(address target, bytes calldata data) external returns (bool success) {
        bytes memory result;
        (success, result) = target.call(data);
        if (success) return true;
        assembly ("memory-safe") {
            revert(add(result, 32), mload(result))
        }
    }

    function onTokens() external {
        if (_target == address(0)) return;
        (address target, bytes memory data) = (_target, _callback);
        (_target, called) = (address(0), true);
        (succeeded, returned) = target.call(data);
    }
}
