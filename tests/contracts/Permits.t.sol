// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IPayerAccounts} from "../../contracts/interfaces/IPayerAccounts.sol";
import {Network} from "./support/Network.sol";

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

/// @dev depositWithPermit(): a permit is the caller's approval and nothing more. One that fails is passed
/// over, and then the allowance decides.
contract PermitsTest is Network {
    uint256 private constant ANNA_KEY = 0xa77a;
    address private immutable ANNA = vm.addr(ANNA_KEY);
    address private constant BERT = address(0xb000);
    bytes32 private constant PERMIT_TYPEHASH = keccak256(
        "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
    );

    struct Permit {
        uint256 value;
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    function setUp() external {
        deploy();
        token.mint(ANNA, 1_000);
    }

    function test_AValidPermitIsUsedUpByTheDeposit() external {
        Permit memory permit = _permit(ANNA_KEY, 70, block.timestamp);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Deposited(ANNA, 0, ANNA, 70, 0);
        _deposit(ANNA, ANNA, 70, permit);
        eq(settlement.accountOf(0, ANNA).balance, 70);
        eq(token.nonces(ANNA), 1);
        eq(_allowance(), 0);
    }

    function test_APermitPaysForSomebodyElse() external {
        Permit memory permit = _permit(ANNA_KEY, 70, block.timestamp);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.Deposited(BERT, 0, ANNA, 70, 0);
        _deposit(ANNA, BERT, 70, permit);
        eq(settlement.accountOf(0, BERT).balance, 70);
        eq(settlement.accountOf(0, ANNA).balance, 0);
    }

    /// @dev Somebody saw it in the mempool and submitted it alone: the allowance is there all the same.
    function test_AForestalledPermitDepositsOnceAndNotAgain() external {
        Permit memory permit = _permit(ANNA_KEY, 70, block.timestamp);
        vm.prank(STRANGER);
        IERC20Permit(address(token)).permit(
            ANNA,
            address(settlement),
            70,
            permit.deadline,
            permit.v,
            permit.r,
            permit.s
        );
        _deposit(ANNA, ANNA, 70, permit);
        eq(settlement.accountOf(0, ANNA).balance, 70);
        _refused(ANNA, ANNA, 70, permit, 0);
    }

    function test_AnExpiredPermitApprovesNothing() external {
        Permit memory permit = _permit(ANNA_KEY, 70, block.timestamp);
        vm.warp(block.timestamp + 1);
        _refused(ANNA, ANNA, 70, permit, 0);
    }

    function test_AnExpiredPermitIsNoErrorWhereTheAllowanceSuffices() external {
        Permit memory permit = _permit(ANNA_KEY, 70, block.timestamp);
        vm.warp(block.timestamp + 1);
        vm.prank(ANNA);
        token.approve(address(settlement), 70);
        _deposit(ANNA, ANNA, 70, permit);
        eq(settlement.accountOf(0, ANNA).balance, 70);
    }

    function test_APermitByAnotherKeyApprovesNothing() external {
        _refused(ANNA, ANNA, 70, _permit(0xbad, 70, block.timestamp), 0);
    }

    /// @dev The permit is tried with the caller as owner, so a stranger can't spend a permit seen elsewhere.
    function test_SomebodyElsesPermitApprovesNothing() external {
        Permit memory permit = _permit(ANNA_KEY, 70, block.timestamp);
        _refused(BERT, BERT, 70, permit, 0);
        _refused(BERT, ANNA, 70, permit, 0);
        eq(token.balanceOf(ANNA), 1_000);
        eq(token.nonces(ANNA), 0);
    }

    function test_APermitForAnotherAmountIsNone() external {
        _refused(ANNA, ANNA, 71, _permit(ANNA_KEY, 70, block.timestamp), 0);
        _refused(ANNA, ANNA, 69, _permit(ANNA_KEY, 70, block.timestamp), 0);
    }

    function test_APermitGivesNoMoreThanThereIs() external {
        Permit memory permit = _permit(ANNA_KEY, 1_001, block.timestamp);
        bytes4 refusal = IERC20Errors.ERC20InsufficientBalance.selector;
        reverts(abi.encodeWithSelector(refusal, ANNA, 1_000, 1_001));
        _deposit(ANNA, ANNA, 1_001, permit);
    }

    function _permit(
        uint256 key,
        uint256 value,
        uint256 deadline
    ) private view returns (Permit memory permit) {
        (permit.value, permit.deadline) = (value, deadline);
        bytes32 structHash = keccak256(
            abi.encode(PERMIT_TYPEHASH, ANNA, address(settlement), value, token.nonces(ANNA), deadline)
        );
        bytes32 digest = keccak256(bytes.concat(hex"1901", token.DOMAIN_SEPARATOR(), structHash));
        (permit.v, permit.r, permit.s) = vm.sign(key, digest);
    }

    function _deposit(address caller, address payer, uint96 amount, Permit memory permit) private {
        vm.prank(caller);
        settlement.depositWithPermit(payer, amount, permit.deadline, permit.v, permit.r, permit.s);
    }

    /// @dev The pull fails for want of an allowance, of which `allowance` is there.
    function _refused(
        address caller,
        address payer,
        uint96 amount,
        Permit memory permit,
        uint256 allowance
    ) private {
        bytes4 refusal = IERC20Errors.ERC20InsufficientAllowance.selector;
        reverts(abi.encodeWithSelector(refusal, address(settlement), allowance, amount));
        _deposit(caller, payer, amount, permit);
    }

    function _allowance() private view returns (uint256) {
        return token.allowance(ANNA, address(settlement));
    }
}
