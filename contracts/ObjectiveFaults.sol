// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "./interfaces/IEnclaveRegistry.sol";
import {ILogFunds} from "./interfaces/ILogFunds.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IObjectiveFaults} from "./interfaces/IObjectiveFaults.sol";
import {Checkpoint, Completion, Receipt, Segment, TypedData} from "./libraries/TypedData.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title ObjectiveFaults
/// @dev Storage layout:
///   0  reported  fault id → whether it was
/// Holds no money for long: what is here and nobody's reward is the beneficiary's.
contract ObjectiveFaults is IObjectiveFaults, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using TypedData for Checkpoint;
    using TypedData for Completion;
    using TypedData for Receipt;

    /// @inheritdoc IObjectiveFaults
    uint96 public constant REWARD_BPS = 1_000;
    uint96 private constant BPS = 10_000;

    /// @inheritdoc IObjectiveFaults
    bytes32 public immutable domainSeparator;
    /// @inheritdoc IObjectiveFaults
    address public immutable settlement;
    /// @inheritdoc IObjectiveFaults
    INodeRegistry public immutable nodeRegistry;
    /// @inheritdoc IObjectiveFaults
    IEnclaveRegistry public immutable enclaveRegistry;
    /// @inheritdoc IObjectiveFaults
    IERC20 public immutable token;
    /// @inheritdoc IObjectiveFaults
    address public immutable beneficiary;

    mapping(bytes32 fault => bool) private _reported;

    /// @param settlement_ Future address of Settlement, which compares at its own construction.
    /// @param nodeRegistry_ Must have been given this contract's address.
    /// @param enclaveRegistry_ Of the same deployment.
    /// @param beneficiary_ Gets what reporters don't.
    constructor(
        address settlement_,
        INodeRegistry nodeRegistry_,
        IEnclaveRegistry enclaveRegistry_,
        address beneficiary_
    ) {
        bytes32 separator = TypedData.domainSeparator(settlement_);
        if (nodeRegistry_.domainSeparator() != separator || nodeRegistry_.faults() != address(this)) {
            revert WrongWiring(address(nodeRegistry_));
        }
        if (enclaveRegistry_.domainSeparator() != separator) revert WrongWiring(address(enclaveRegistry_));
        if (beneficiary_ == address(0)) revert ZeroAddress();
        domainSeparator = separator;
        settlement = settlement_;
        nodeRegistry = nodeRegistry_;
        enclaveRegistry = enclaveRegistry_;
        token = nodeRegistry_.token();
        beneficiary = beneficiary_;
    }

    /// @inheritdoc IObjectiveFaults
    function reportCompletions(
        Completion calldata first,
        bytes calldata firstSignature,
        Completion calldata second,
        bytes calldata secondSignature,
        address rewardTo
    ) external nonReentrant {
        address node = first.node;
        bytes32 award = first.awardDigest;
        if (second.node != node) revert DifferentNodes(node, second.node);
        if (second.awardDigest != award) revert DifferentAwards(award, second.awardDigest);
        bytes32 firstDigest = TypedData.digest(domainSeparator, first.hash());
        bytes32 secondDigest = TypedData.digest(domainSeparator, second.hash());
        if (firstDigest == secondDigest) revert SameCompletion(firstDigest);
        _checkSigned(firstDigest, firstSignature, node);
        _checkSigned(secondDigest, secondSignature, node);

        _record(keccak256(abi.encode(Kind.Completions, node, award)));
        uint96 slashed = nodeRegistry.slashBond(node);
        uint96 reward = _pay(rewardTo, slashed);
        emit CompletionsReported(node, award, firstDigest, secondDigest, rewardTo, slashed, reward);
    }

    /// @inheritdoc IObjectiveFaults
    function reportCheckpoints(
        Checkpoint calldata first,
        bytes calldata firstSignature,
        Checkpoint calldata second,
        bytes calldata secondSignature,
        address rewardTo
    ) external nonReentrant {
        bytes32 logId = first.logId;
        uint64 size = first.size;
        if (second.logId != logId) revert DifferentLogs(logId, second.logId);
        if (second.size != size) revert DifferentSizes(size, second.size);
        if (second.root == first.root) revert SameRoot(first.root);
        _checkSignedByEpoch(first, firstSignature);
        _checkSignedByEpoch(second, secondSignature);

        _record(keccak256(abi.encode(Kind.Checkpoints, logId, size)));
        uint96 slashed = ILogFunds(settlement).slashReserve(logId);
        uint96 reward = _pay(rewardTo, slashed);
        emit CheckpointsReported(logId, size, first.root, second.root, rewardTo, slashed, reward);
    }

    /// @inheritdoc IObjectiveFaults
    function reportReceipt(
        Receipt calldata receipt,
        bytes calldata signature,
        address rewardTo
    ) external nonReentrant {
        bytes32 logId = receipt.head.logId;
        uint256 sum = _sum(receipt.segments);
        if (sum == receipt.head.total) revert RightTotal(receipt.head.total);
        bytes32 digest = TypedData.digest(domainSeparator, receipt.hash());
        _checkSigned(digest, signature, enclaveRegistry.epochOf(logId, receipt.head.epoch).key);

        _record(keccak256(abi.encode(Kind.Receipt, digest)));
        uint96 slashed = ILogFunds(settlement).slashReserve(logId);
        uint96 reward = _pay(rewardTo, slashed);
        emit ReceiptReported(logId, digest, receipt.head.total, sum, rewardTo, slashed, reward);
    }

    /// @inheritdoc IObjectiveFaults
    function sweep() external nonReentrant returns (uint256 amount) {
        amount = token.balanceOf(address(this));
        emit Swept(beneficiary, amount);
        token.safeTransfer(beneficiary, amount);
    }

    /// @inheritdoc IObjectiveFaults
    function isReported(bytes32 fault) external view returns (bool) {
        return _reported[fault];
    }

    function _record(bytes32 fault) private {
        if (_reported[fault]) revert AlreadyReported(fault);
        _reported[fault] = true;
    }

    /// @dev Pays the reporter's share of what has just arrived; the rest stays for {sweep}.
    function _pay(address rewardTo, uint96 slashed) private returns (uint96 reward) {
        if (rewardTo == address(0)) revert ZeroAddress();
        reward = uint96((uint256(slashed) * REWARD_BPS) / BPS);
        if (reward != 0) token.safeTransfer(rewardTo, reward);
    }

    /// @dev Any epoch of the log counts, whatever became of it; reverts if there was none of this number.
    function _checkSignedByEpoch(Checkpoint calldata checkpoint, bytes calldata signature) private view {
        bytes32 digest = TypedData.digest(domainSeparator, checkpoint.hash());
        _checkSigned(digest, signature, enclaveRegistry.epochOf(checkpoint.logId, checkpoint.epoch).key);
    }

    function _checkSigned(bytes32 digest, bytes calldata signature, address key) private pure {
        address signer = ECDSA.recoverCalldata(digest, signature);
        if (signer != key) revert WrongSigner(key, signer);
    }

    /// @dev Of amounts of 96 bits, so no number of them that fits a transaction overflows.
    function _sum(Segment[] calldata segments) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < segments.length; ++i) {
            sum += segments[i].amount;
        }
    }
}
