// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILauncher} from "../../contracts/interfaces/ILauncher.sol";
import {Test} from "./support/Test.sol";

/// @dev Two contracts that name each other, as those of a deployment do.
contract Half {
    address public immutable other;
    uint256 public immutable number;

    error Odd(uint256 number);

    constructor(address other_, uint256 number_) {
        if (number_ % 2 == 1) revert Odd(number_);
        (other, number) = (other_, number_);
    }
}

contract LauncherTest is Test {
    string private constant LAUNCHER = "contracts/Launcher.sol/Launcher";
    bytes4 private constant ANY = 0xdeadbeef;
    address private constant STRANGER = address(0x5724);

    ILauncher private launcher;

    function setUp() external {
        launcher = ILauncher(create(LAUNCHER, ""));
    }

    function test_EachLaunchCreatesAtTheAddressGivenBefore() external {
        eq(launcher.owner(), address(this));
        (address first, address second) = (launcher.addressOf(1), launcher.addressOf(2));
        vm.expectEmit(address(launcher));
        emit ILauncher.Launched(1, first);
        eq(_launch(1, second, 10), first);
        eq(_launch(2, first, 20), second);
        eq(Half(first).other(), second);
        eq(Half(second).other(), first);
        eq(Half(second).number(), 20);
    }

    function test_OnlyTheOwnerLaunches() external {
        reverts(abi.encodeWithSelector(ILauncher.NotOwner.selector, STRANGER));
        vm.prank(STRANGER);
        launcher.launch(1, type(Half).creationCode, _arguments(address(0), 0));
    }

    function test_NumbersHaveNoGapsAndAreUsedOnce() external {
        reverts(abi.encodeWithSelector(ILauncher.WrongNumber.selector, 1, 2));
        launcher.launch(2, type(Half).creationCode, _arguments(address(0), 0));
        _launch(1, address(0), 0);
        reverts(abi.encodeWithSelector(ILauncher.WrongNumber.selector, 2, 1));
        launcher.launch(1, type(Half).creationCode, _arguments(address(0), 0));
    }

    function test_ARefusalComesThroughAndCostsNoNumber() external {
        address first = launcher.addressOf(1);
        reverts(abi.encodeWithSelector(Half.Odd.selector, 7));
        launcher.launch(1, type(Half).creationCode, _arguments(address(0), 7));
        eq(_launch(1, address(0), 8), first);
    }

    function test_NumbersEndWithTheirEncoding() external {
        reverts(abi.encodeWithSelector(ILauncher.NumberOutOfRange.selector, 0));
        launcher.addressOf(0);
        reverts(abi.encodeWithSelector(ILauncher.NumberOutOfRange.selector, 128));
        launcher.addressOf(128);
        for (uint8 number = 1; number < 128; ++number) {
            eq(_launch(number, address(0), 0), launcher.addressOf(number));
        }
        reverts(abi.encodeWithSelector(ILauncher.NumberOutOfRange.selector, 128));
        launcher.launch(128, type(Half).creationCode, _arguments(address(0), 0));
    }

    function _launch(uint8 number, address other, uint256 value) private returns (address) {
        return launcher.launch(number, type(Half).creationCode, _arguments(other, value));
    }

    function _arguments(address other, uint256 value) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ANY, other, value);
    }
}
