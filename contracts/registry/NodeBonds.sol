// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeBonds} from "../interfaces/INodeBonds.sol";
import {SettlementBase} from "../settlement/SettlementBase.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Nodes' bonds
/// @dev Takes token, exact pull and delay from the base that Settlement's parts share, with the unbonding
/// delay in place of the payers'. Payout wallets are the registry's business.
abstract contract NodeBonds is SettlementBase, INodeBonds {
    struct Bond {
        uint96 amount;
        address funder; // zero iff the amount is
        uint40 unbondingAt; // 0: not asked for
    }

    /// @inheritdoc INodeBonds
    address public immutable faults;

    /// @dev Two slots per node.
    mapping(address node => Bond) private _bonds;
    mapping(address node => address funder) private _allowedFunders;

    constructor(
        IERC20 token_,
        address faults_,
        uint32 unbondingDelay_
    ) SettlementBase(token_, unbondingDelay_) {
        faults = faults_;
    }

    modifier onlyFunder(address node) {
        address funder = _bonds[node].funder;
        if (funder != msg.sender) revert NotFunder(node, funder, msg.sender);
        _;
    }

    /// @inheritdoc INodeBonds
    function allowFunder(address node, address funder) external {
        _checkNodeOrPayout(node);
        _allowedFunders[node] = funder;
        emit FunderAllowed(node, funder);
    }

    /// @inheritdoc INodeBonds
    function bond(address node, uint96 amount) external nonReentrant {
        Bond storage entry = _bonds[node];
        if (entry.amount == 0) _start(node, entry);
        if (entry.funder != msg.sender) revert NotFunder(node, entry.funder, msg.sender);
        if (entry.unbondingAt != 0) revert UnbondingPending(node, entry.unbondingAt);
        _pull(amount);
        entry.amount += amount;
        emit Bonded(node, msg.sender, amount);
    }

    /// @inheritdoc INodeBonds
    function requestUnbonding(address node) external {
        Bond storage entry = _bonds[node];
        if (entry.amount == 0) revert NotFunder(node, address(0), msg.sender);
        if (msg.sender != entry.funder) _checkNodeOrPayout(node);
        if (entry.unbondingAt != 0) revert UnbondingPending(node, entry.unbondingAt);
        entry.unbondingAt = _afterDelay();
        emit UnbondingRequested(node, entry.unbondingAt);
    }

    /// @inheritdoc INodeBonds
    function cancelUnbonding(address node) external onlyFunder(node) {
        Bond storage entry = _bonds[node];
        if (entry.unbondingAt == 0) revert NothingRequested();
        _checkMayFund(node);
        entry.unbondingAt = 0;
        emit UnbondingRequested(node, 0);
    }

    /// @inheritdoc INodeBonds
    function withdrawBond(address node, address to) external nonReentrant returns (uint96 amount) {
        if (to == address(0)) revert ZeroAddress();
        Bond memory entry = _bonds[node];
        if (msg.sender != entry.funder) {
            if (to != entry.funder) revert NotFunder(node, entry.funder, msg.sender);
            _checkNodeOrPayout(node);
        }
        _checkMatured(entry.unbondingAt);
        amount = entry.amount;
        delete _bonds[node];
        emit BondWithdrawn(node, to, amount);
        _push(to, amount);
    }

    /// @inheritdoc INodeBonds
    function slashBond(address node) external nonReentrant returns (uint96 amount) {
        if (msg.sender != faults) revert NotFaults(msg.sender);
        Bond memory entry = _bonds[node];
        amount = entry.amount;
        if (amount == 0) return 0;
        delete _bonds[node];
        emit BondSlashed(node, entry.funder, amount);
        return uint96(_push(faults, amount));
    }

    /// @inheritdoc INodeBonds
    function bondOf(address node) external view returns (uint96 amount, address funder, uint40 unbondingAt) {
        Bond memory entry = _bonds[node];
        return (entry.amount, entry.funder, entry.unbondingAt);
    }

    /// @inheritdoc INodeBonds
    function allowedFunderOf(address node) external view returns (address) {
        return _allowedFunders[node];
    }

    /// @inheritdoc INodeBonds
    function unbondingDelay() external view returns (uint32) {
        return WITHDRAWAL_DELAY;
    }

    /// @inheritdoc INodeBonds
    function token() external view returns (IERC20) {
        return TOKEN;
    }

    /// @dev Payout wallet of `node` in force now; zero if not registered.
    function _payoutOf(address node) internal view virtual returns (address);

    /// @dev Makes the caller funder of a bond that has no money yet. An allowance is used up, so that who
    /// left once can't come back with a trifle and keep others out.
    function _start(address node, Bond storage entry) private {
        if (_payoutOf(node) == address(0)) revert NodeNotRegistered(node);
        _checkMayFund(node);
        delete _allowedFunders[node];
        entry.funder = msg.sender;
    }

    function _checkMayFund(address node) private view {
        if (_isNodeOrPayout(node, msg.sender) || _allowedFunders[node] == msg.sender) return;
        revert NotAllowedToFund(node, msg.sender);
    }

    function _checkNodeOrPayout(address node) private view {
        if (!_isNodeOrPayout(node, msg.sender)) revert NotNodeOrPayout(node, msg.sender);
    }

    /// @dev Never true of the payout wallet of a node that isn't registered, as nobody is the zero address.
    function _isNodeOrPayout(address node, address account) private view returns (bool) {
        return account == node || account == _payoutOf(node);
    }
}
