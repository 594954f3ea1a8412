// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PackedRows} from "../../contracts/libraries/PackedRows.sol";
import {Test} from "./support/Test.sol";

contract PackedRowsHarness {
    using PackedRows for bytes;

    function read(
        bytes calldata rows
    ) external pure returns (address[] memory parties, uint96[] memory amounts) {
        uint256 count = rows.count();
        (parties, amounts) = (new address[](count), new uint96[](count));
        address previous;
        for (uint256 i = 0; i < count; ++i) {
            (parties[i], amounts[i]) = rows.rowAfter(previous, i);
            previous = parties[i];
        }
    }
}

contract PackedRowsTest is Test {
    PackedRowsHarness private immutable HARNESS = new PackedRowsHarness();

    function test_NoBytesAreNoRows() external view {
        (address[] memory parties, ) = HARNESS.read("");
        eq(parties.length, 0);
    }

    function testFuzz_RowsReadAsTheyWerePacked(
        address[3] memory parties,
        uint96[3] memory amounts
    ) external view {
        if (!(address(0) < parties[0] && parties[0] < parties[1] && parties[1] < parties[2])) {
            parties = [
                address(1),
                address(uint160(bound(uint160(parties[1]), 2, 2 ** 159))),
                address(type(uint160).max)
            ];
        }
        for (uint256 i = 0; i < 3; ++i) {
            amounts[i] = uint96(bound(amounts[i], 1, type(uint96).max - 1));
        }
        (address[] memory foundParties, uint96[] memory foundAmounts) = HARNESS.read(
            abi.encodePacked(parties[0], amounts[0], parties[1], amounts[1], parties[2], amounts[2])
        );
        for (uint256 i = 0; i < 3; ++i) {
            eq(foundParties[i], parties[i]);
            eq(foundAmounts[i], amounts[i]);
        }
    }

    function testFuzz_EveryBitOfARowCounts(address party, uint96 amount, uint8 bit) external view {
        party = party == address(0) ? address(1) : party;
        amount = amount == 0 ? 1 : amount;
        bytes32 row = bytes32(abi.encodePacked(party, amount)) ^ bytes32(uint256(1) << bit);
        try HARNESS.read(abi.encodePacked(row)) returns (address[] memory parties, uint96[] memory amounts) {
            check(parties[0] != party || amounts[0] != amount);
        } catch {
            check(bytes20(row) == 0 || uint96(uint256(row)) == 0);
        }
    }

    function testFuzz_APartOfARowIsRefused(uint8 length) external {
        vm.assume(length % 32 != 0);
        reverts(abi.encodeWithSelector(PackedRows.WrongRowsLength.selector, length));
        HARNESS.read(new bytes(length));
    }

    function test_EqualPartiesAreRefused() external {
        reverts(abi.encodeWithSelector(PackedRows.RowsNotAscending.selector, address(5), address(5)));
        HARNESS.read(abi.encodePacked(address(5), uint96(1), address(5), uint96(1)));
    }

    function test_DescendingPartiesAreRefused() external {
        reverts(abi.encodeWithSelector(PackedRows.RowsNotAscending.selector, address(5), address(4)));
        HARNESS.read(abi.encodePacked(address(5), uint96(1), address(4), uint96(1)));
    }

    function test_TheZeroAddressIsRefused() external {
        reverts(abi.encodeWithSelector(PackedRows.RowsNotAscending.selector, address(0), address(0)));
        HARNESS.read(abi.encodePacked(address(0), uint96(1)));
    }

    function test_AZeroAmountIsRefused() external {
        reverts(abi.encodeWithSelector(PackedRows.ZeroRow.selector, address(5)));
        HARNESS.read(abi.encodePacked(address(5), uint96(0)));
    }
}
