// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeCredits} from "../interfaces/INodeCredits.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {PackedRows} from "../libraries/PackedRows.sol";
import {SettlementBase} from "./SettlementBase.sol";

import {StorageSlot} from "@openzeppelin/contracts/utils/StorageSlot.sol";

/// @title Nodes' credit
abstract contract NodeCredits is SettlementBase, INodeCredits {
    using PackedRows for bytes;
    /// @dev One slot that never returns to zero: crediting a node that was paid out stays cheap.
    struct Credit {
        uint128 credit;
        uint128 lifetime;
    }

    /// @dev What a unit of credit adds to the slot: one to `credit`, the low half, and one to `lifetime`. As
    /// `lifetime` is never the lesser, the low half can't overflow unless the checked sum does.
    uint256 private constant BOTH = (1 << 128) | 1;

    INodeRegistry internal immutable NODE_REGISTRY;

    mapping(address node => Credit) private _credits;

    constructor(INodeRegistry nodeRegistry_) {
        NODE_REGISTRY = nodeRegistry_;
    }

    /// @inheritdoc INodeCredits
    function withdrawCredit() external nonReentrant returns (uint128 amount) {
        address wallet = NODE_REGISTRY.payoutOf(msg.sender);
        if (wallet == address(0)) revert NodeNotRegistered(msg.sender);
        amount = _credits[msg.sender].credit;
        if (amount == 0) revert NoCredit(msg.sender);
        _credits[msg.sender].credit = 0;
        emit CreditPaid(msg.sender, wallet, amount);
        _push(wallet, amount);
    }

    /// @inheritdoc INodeCredits
    function payout(address[] calldata nodes) external nonReentrant {
        for (uint256 i = 0; i < nodes.length; ++i) {
            _payout(nodes[i]);
        }
    }

    /// @inheritdoc INodeCredits
    function creditOf(address node) external view returns (uint128 credit, uint128 lifetime) {
        Credit memory entry = _credits[node];
        return (entry.credit, entry.lifetime);
    }

    /// @dev Credits every row, each as `floor(amount * backed / due)`; `backed == due` credits in full.
    /// As `backed <= due`, a share has no more bits than the amount.
    /// @return total Sum of the rows' amounts.
    /// @return credited Sum of what was credited.
    function _credit(
        bytes calldata rows,
        uint256 backed,
        uint256 due
    ) internal returns (uint256 total, uint256 credited) {
        uint256 count = rows.count();
        address node;
        for (uint256 i = 0; i < count; ++i) {
            uint96 amount;
            (node, amount) = rows.rowAfter(node, i);
            uint256 share = backed == due ? amount : (amount * backed) / due;
            unchecked {
                total += amount; // below 2^96 each, and calldata holds no 2^160 rows
                credited += share;
            }
            _asWord(_credits[node]).value += share * BOTH;
        }
    }

    /// @dev One read and one write of the slot; through both members it would be two, 400 gas more for each.
    function _asWord(Credit storage entry) private pure returns (StorageSlot.Uint256Slot storage word) {
        // solhint-disable-next-line no-inline-assembly
        assembly ("memory-safe") {
            word.slot := entry.slot
        }
    }

    function _payout(address node) private {
        uint128 amount = _credits[node].credit;
        if (amount == 0) return;
        address wallet = NODE_REGISTRY.payoutOf(node);
        if (wallet == address(0)) return;
        _credits[node].credit = 0;
        if (_tryPush(wallet, amount)) {
            emit CreditPaid(node, wallet, amount);
        } else {
            _credits[node].credit += amount; // a re-entering token may have let a batch add to it
            emit PayoutFailed(node, wallet, amount);
        }
    }
}
