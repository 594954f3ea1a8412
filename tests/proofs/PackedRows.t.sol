// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PackedRows} from "../../contracts/libraries/PackedRows.sol";
import {PackedRowsHarness} from "../contracts/PackedRows.t.sol";

/// @title What holds for all packed rows up to three
/// @dev Halmos runs the compiled code on symbolic bytes (`make prove`), so `rows` stands for every value of
/// that length. The specification below reads byte by byte and shares nothing with the library. Longer
/// batches repeat the same loop body; that they do is tested, not proven.
contract PackedRowsProof {
    PackedRowsHarness private immutable READER = new PackedRowsHarness();

    function check_NoRows() external view {
        (address[] memory parties, uint96[] memory amounts) = READER.read("");
        assert(parties.length == 0 && amounts.length == 0);
    }

    function check_OneRow(bytes32 a) external view {
        _check(abi.encodePacked(a));
    }

    function check_TwoRows(bytes32 a, bytes32 b) external view {
        _check(abi.encodePacked(a, b));
    }

    function check_ThreeRows(bytes32 a, bytes32 b, bytes32 c) external view {
        _check(abi.encodePacked(a, b, c));
    }

    /// @dev Every part of a row beside 0, 1 or 2 whole ones is refused, whatever the bytes are.
    function check_PartsOfRows(bytes32 a, bytes32 b, bytes32 c) external view {
        bytes memory whole = abi.encodePacked(a, b, c);
        for (uint256 length = 1; length < 96; ++length) {
            if (length % 32 == 0) continue;
            assembly ("memory-safe") {
                mstore(whole, length)
            }
            bytes memory expected = abi.encodeWithSelector(PackedRows.WrongRowsLength.selector, length);
            (bool success, bytes memory reason) = _read(whole);
            assert(!success && keccak256(reason) == keccak256(expected));
        }
    }

    /// @dev Accepted rows are read as specified; refused ones with the specified error and values.
    function _check(bytes memory rows) private view {
        (bool success, bytes memory result) = _read(rows);
        bytes memory refusal = _refusal(rows);
        assert(success == (refusal.length == 0));
        if (!success) {
            assert(keccak256(result) == keccak256(refusal));
            return;
        }
        (address[] memory parties, uint96[] memory amounts) = abi.decode(result, (address[], uint96[]));
        assert(parties.length == rows.length / 32 && amounts.length == rows.length / 32);
        for (uint256 i = 0; i < parties.length; ++i) {
            assert(uint160(parties[i]) == _party(rows, i));
            assert(amounts[i] == _amount(rows, i));
        }
    }

    function _read(bytes memory rows) private view returns (bool, bytes memory) {
        return address(READER).staticcall(abi.encodeCall(PackedRowsHarness.read, (rows)));
    }

    /// @dev Error of the first row that is not after the one before it or has no amount; empty if all fit.
    function _refusal(bytes memory rows) private pure returns (bytes memory) {
        uint256 previous = 0;
        for (uint256 i = 0; i < rows.length / 32; ++i) {
            uint256 party = _party(rows, i);
            if (party <= previous) {
                return abi.encodeWithSelector(PackedRows.RowsNotAscending.selector, previous, party);
            }
            if (_amount(rows, i) == 0) return abi.encodeWithSelector(PackedRows.ZeroRow.selector, party);
            previous = party;
        }
        return "";
    }

    /// @dev The first 20 bytes of row `index`, big-endian.
    function _party(bytes memory rows, uint256 index) private pure returns (uint256 party) {
        for (uint256 i = 0; i < 20; ++i) {
            party = (party << 8) | uint8(rows[32 * index + i]);
        }
    }

    /// @dev The last 12 bytes of row `index`, big-endian.
    function _amount(bytes memory rows, uint256 index) private pure returns (uint256 amount) {
        for (uint256 i = 20; i < 32; ++i) {
            amount = (amount << 8) | uint8(rows[32 * index + i]);
        }
    }
}
