// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Checkpoint, Completion, Receipt} from "../libraries/TypedData.sol";
import {IEnclaveRegistry} from "./IEnclaveRegistry.sol";
import {INodeRegistry} from "./INodeRegistry.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Faults that a contract can decide from signatures alone
/// @notice Anyone may report. A node that signed two completions for one award loses its bond; a log whose
/// enclave forked it, or signed a receipt that doesn't add up, loses its operator's reserve. The reporter
/// gets a share, the rest goes to the beneficiary.
///
/// Each fault counts once: completions per node and award, checkpoints per log and size, receipts per
/// digest. It is recorded also where there was nothing to take, and then never touches a later bond or
/// reserve. Another award, size or receipt is another fault: a log that was forked at many sizes should not
/// be given a new reserve, but be left for a new log.
///
/// Who signed what is a matter of keys, never of time:
/// - A node key answers for its bond whether or not it is registered, and since when.
/// - Every epoch's key counts for ever, also when the epoch ended, expired or was revoked: no time inside a
///   message can be believed, and a faulty operator would revoke its own epoch first. What a key that leaks
///   later can do is burn the reserve of its own log, whose operator activated it. Payers' deposits and
///   nodes' credit are out of reach; nodes lose the cover for payers who are short.
///
/// A report in the mempool can be copied by somebody else, who then gets the share; the fault is punished
/// all the same, and evidence is public by nature. A culprit who reports itself, to come before others or
/// before its own unbonding or withdrawal delay, gets the same share and loses the rest.
///
/// Does not prove intent: an operator that restored an old database and went on has forked its log.
interface IObjectiveFaults {
    /// @notice First word of a fault's id, `keccak256(abi.encode(kind, …))` over what follows here:
    /// Completions node, award digest; Checkpoints log id, size; Receipt receipt digest.
    enum Kind {
        Completions,
        Checkpoints,
        Receipt
    }

    /// @notice `node` signed both completions for one award; `slashed` of its bond was taken.
    event CompletionsReported(
        address indexed node,
        bytes32 indexed awardDigest,
        bytes32 firstDigest,
        bytes32 secondDigest,
        address rewardTo,
        uint96 slashed,
        uint96 reward
    );
    /// @notice Both roots were signed for `size` of the log; `slashed` of its reserve was taken.
    event CheckpointsReported(
        bytes32 indexed logId,
        uint64 indexed size,
        bytes32 firstRoot,
        bytes32 secondRoot,
        address rewardTo,
        uint96 slashed,
        uint96 reward
    );
    /// @notice A signed receipt's segments come to `sum` and not to its total; `slashed` of the log's
    /// reserve was taken.
    event ReceiptReported(
        bytes32 indexed logId,
        bytes32 indexed receiptDigest,
        uint96 total,
        uint256 sum,
        address rewardTo,
        uint96 slashed,
        uint96 reward
    );
    /// @notice What no reporter got was paid to the beneficiary.
    event Swept(address indexed beneficiary, uint256 amount);

    error ZeroAddress();
    /// @notice `target` was deployed for another Settlement, chain or faults contract.
    error WrongWiring(address target);
    /// @notice The message was signed by `signer`, not by `key`, who should have.
    error WrongSigner(address key, address signer);
    /// @notice This fault was reported before.
    error AlreadyReported(bytes32 fault);
    error DifferentNodes(address first, address second);
    error DifferentAwards(bytes32 first, bytes32 second);
    /// @notice Both are the same completion, whatever their signatures.
    error SameCompletion(bytes32 digest);
    error DifferentLogs(bytes32 first, bytes32 second);
    error DifferentSizes(uint64 first, uint64 second);
    /// @notice Both say the same of the log, whatever their epochs and times.
    error SameRoot(bytes32 root);
    /// @notice The receipt adds up.
    error RightTotal(uint96 total);

    /// @notice Reports two different completions of one node for one award.
    /// @param firstSignature 65 bytes by `first.node`.
    /// @param secondSignature 65 bytes by the same node.
    /// @param rewardTo Gets the reporter's share.
    function reportCompletions(
        Completion calldata first,
        bytes calldata firstSignature,
        Completion calldata second,
        bytes calldata secondSignature,
        address rewardTo
    ) external;

    /// @notice Reports two roots of one log at one size, of one epoch or of two.
    /// @param firstSignature 65 bytes by the key of `first.epoch`.
    /// @param secondSignature 65 bytes by the key of `second.epoch`.
    /// @param rewardTo Gets the reporter's share.
    function reportCheckpoints(
        Checkpoint calldata first,
        bytes calldata firstSignature,
        Checkpoint calldata second,
        bytes calldata secondSignature,
        address rewardTo
    ) external;

    /// @notice Reports a receipt whose total is not the sum of its segments' amounts, whether or not it is
    /// in the log. Its other figures are beyond a contract; verification of bundles checks them.
    /// @param signature 65 bytes by the key of the receipt's epoch.
    /// @param rewardTo Gets the reporter's share.
    function reportReceipt(Receipt calldata receipt, bytes calldata signature, address rewardTo) external;

    /// @notice Pays what no reporter got to the beneficiary; anyone may call.
    function sweep() external returns (uint256 amount);

    /// @notice Whether the fault with this id, see {Kind}, was reported.
    function isReported(bytes32 fault) external view returns (bool);

    /// @notice The reporter's share of what is slashed, in basis points, rounded down.
    function REWARD_BPS() external view returns (uint96);

    /// @notice Gets what reporters don't. Should gain from no fault: an operator in its place would fork its
    /// own log for free.
    function beneficiary() external view returns (address);

    /// @notice The Settlement whose reserves this contract may slash.
    function settlement() external view returns (address);

    /// @notice The registry whose bonds this contract may slash.
    function nodeRegistry() external view returns (INodeRegistry);

    /// @notice Names the keys of logs.
    function enclaveRegistry() external view returns (IEnclaveRegistry);

    /// @notice What bonds and reserves are made of.
    function token() external view returns (IERC20);

    /// @notice EIP-712 separator of the whole deployment.
    function domainSeparator() external view returns (bytes32);
}
