// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Vm} from "./Vm.sol";

/// @dev Assertions that revert with both values, and short names for what tests do all the time.
abstract contract Test {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    error UintsDiffer(uint256 found, uint256 expected);
    error WordsDiffer(bytes32 found, bytes32 expected);
    error AddressesDiffer(address found, address expected);
    error StringsDiffer(string found, string expected);
    error False();

    modifier by(address sender) {
        vm.startPrank(sender);
        _;
        vm.stopPrank();
    }

    function check(bool condition) internal pure {
        if (!condition) revert False();
    }

    function eq(uint256 found, uint256 expected) internal pure {
        if (found != expected) revert UintsDiffer(found, expected);
    }

    function eq(bytes32 found, bytes32 expected) internal pure {
        if (found != expected) revert WordsDiffer(found, expected);
    }

    function eq(address found, address expected) internal pure {
        if (found != expected) revert AddressesDiffer(found, expected);
    }

    function eq(string memory found, string memory expected) internal pure {
        if (keccak256(bytes(found)) != keccak256(bytes(expected))) revert StringsDiffer(found, expected);
    }

    /// @dev The next call must revert with a custom error without arguments.
    function reverts(bytes4 selector) internal {
        vm.expectRevert(abi.encodeWithSelector(selector));
    }

    /// @dev The next call must revert with exactly these bytes.
    function reverts(bytes memory data) internal {
        vm.expectRevert(data);
    }

    /// @dev A 65-byte signature.
    function signature(uint256 privateKey, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(privateKey, digest);
        return bytes.concat(r, s, bytes1(v));
    }

    /// @dev Deploys a compiled contract by its artifact. Creating it with `new` would compile it once more
    /// into every test; this is the very bytecode that gets exported.
    function create(string memory artifact, bytes memory arguments) internal returns (address deployed) {
        string memory json = vm.readFile(string.concat("./artifacts/", artifact, ".json"));
        bytes memory code = bytes.concat(vm.parseJsonBytes(json, ".bytecode"), arguments);
        // A reverting constructor reverts here with its own error.
        assembly ("memory-safe") {
            deployed := create(0, add(code, 32), mload(code))
            if iszero(deployed) {
                let pointer := mload(0x40)
                returndatacopy(pointer, 0, returndatasize())
                revert(pointer, returndatasize())
            }
        }
    }

    /// @dev `value` brought into [low, high].
    function bound(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + (value % (high - low + 1));
    }
}
