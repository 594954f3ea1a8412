// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Packed rows of a batch
/// @notice A row is 32 bytes, `address (20) ‖ uint96 amount, big-endian`. Rows stand strictly ascending by
/// address and no amount is zero, so that a set of rows has one encoding and names a party once.
library PackedRows {
    uint256 private constant ROW_BYTES = 32;

    error WrongRowsLength(uint256 length);
    error ZeroRow(address party);
    error RowsNotAscending(address previous, address party);

    /// @notice Number of rows; reverts where a part of one is left.
    function count(bytes calldata rows) internal pure returns (uint256) {
        if (rows.length % ROW_BYTES != 0) revert WrongRowsLength(rows.length);
        return rows.length / ROW_BYTES;
    }

    /// @notice Row `index`, whose party must come after `previous`.
    /// @param previous Party of the row before; the zero address before the first, so that nobody can be
    /// the zero address.
    function rowAfter(
        bytes calldata rows,
        address previous,
        uint256 index
    ) internal pure returns (address party, uint96 amount) {
        bytes32 row = bytes32(rows[index * ROW_BYTES:]);
        party = address(bytes20(row));
        amount = uint96(uint256(row));
        if (party <= previous) revert RowsNotAscending(previous, party);
        if (amount == 0) revert ZeroRow(party);
    }
}
