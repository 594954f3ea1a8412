// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILauncher} from "./interfaces/ILauncher.sol";

/// @title Launcher
/// @dev Storage layout:
///   0  next  number of the next launch; equals this account's nonce
contract Launcher is ILauncher {
    uint8 private constant LAST_NUMBER = 127;
    uint256 private constant SELECTOR_BYTES = 4;

    /// @inheritdoc ILauncher
    address public immutable owner;

    uint8 private _next = 1;

    constructor() {
        owner = msg.sender;
    }

    /// @inheritdoc ILauncher
    function launch(
        uint8 number,
        bytes calldata code,
        bytes calldata arguments
    ) external returns (address created) {
        if (msg.sender != owner) revert NotOwner(msg.sender);
        if (number != _next) revert WrongNumber(_next, number);
        _checkNumber(number);
        _next = number + 1;
        bytes memory creation = bytes.concat(code, arguments[SELECTOR_BYTES:]);
        // Solidity has no other way to create from code that comes as data.
        // solhint-disable-next-line no-inline-assembly
        assembly ("memory-safe") {
            created := create(0, add(creation, 0x20), mload(creation))
            if iszero(created) {
                let reason := mload(0x40)
                returndatacopy(reason, 0, returndatasize())
                revert(reason, returndatasize())
            }
        }
        emit Launched(number, created);
    }

    /// @inheritdoc ILauncher
    /// @dev Keccak of the RLP list (this address, nonce): `d6 94 address nonce` for nonces 1 to 127.
    function addressOf(uint8 number) external view returns (address) {
        _checkNumber(number);
        bytes32 hash = keccak256(abi.encodePacked(hex"d694", address(this), number));
        return address(uint160(uint256(hash)));
    }

    function _checkNumber(uint8 number) private pure {
        if (number == 0 || number > LAST_NUMBER) revert NumberOutOfRange(number);
    }
}
