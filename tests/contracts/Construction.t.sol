// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {IGatewayRegistry} from "../../contracts/interfaces/IGatewayRegistry.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IObjectiveFaults} from "../../contracts/interfaces/IObjectiveFaults.sol";
import {IReceiptLog} from "../../contracts/interfaces/IReceiptLog.sol";
import {ISettlement} from "../../contracts/interfaces/ISettlement.sol";
import {TypedData, Verdict} from "../../contracts/libraries/TypedData.sol";
import {TestToken} from "../../contracts/mocks/TestToken.sol";
import {Network} from "./support/Network.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev Another deployment's receipt log or faults contract that claims this one's domain.
contract ForeignDouble {
    bytes32 public immutable domainSeparator;
    address public immutable settlement;

    constructor(bytes32 domainSeparator_, address settlement_) {
        (domainSeparator, settlement) = (domainSeparator_, settlement_);
    }
}

/// @dev Counts in units of 10^-18.
contract DaintyToken is TestToken {
    function decimals() public pure override returns (uint8) {
        return 18;
    }
}

/// @dev In place of EIP-2935's contract: answers with one byte.
contract ShortHistory {
    fallback() external {
        assembly ("memory-safe") {
            return(0, 1)
        }
    }
}

/// @dev What constructors refuse beyond what SettlementAdmin.t.sol and EnclaveRegistry.t.sol show, and the
/// constants that a deployment fixes.
contract ConstructionTest is Network {
    address private constant BLOCK_HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    function setUp() external {
        deploy();
    }

    function test_TheFirstVerifierIsNotZero() external {
        reverts(IEnclaveRegistry.ZeroVerifier.selector);
        this.createEnclaveRegistry(abi.encode(manager, receiptLog, address(0), ADMIN_DELAY, EPOCH_LIFETIME));
    }

    function test_EpochsMustLiveAtAll() external {
        reverts(IEnclaveRegistry.ZeroLifetime.selector);
        this.createEnclaveRegistry(abi.encode(manager, receiptLog, verifier, ADMIN_DELAY, 0));
    }

    /// @dev All amounts that parties sign have six decimals.
    function test_ATokenWithOtherDecimalsIsRefused() external {
        ISettlement.Config memory wanted = config(EVERYTHING_PPM, standardTimes());
        wanted.token = new DaintyToken();
        reverts(abi.encodeWithSelector(ISettlement.UnsuitableToken.selector, address(wanted.token)));
        this.createSettlement(wanted);
    }

    function test_ATokenWithoutCodeIsRefused() external {
        ISettlement.Config memory wanted = config(EVERYTHING_PPM, standardTimes());
        wanted.token = IERC20(address(0x70ce));
        reverts(abi.encodeWithSelector(ISettlement.UnsuitableToken.selector, address(0x70ce)));
        this.createSettlement(wanted);
    }

    /// @dev The domain alone doesn't do: the log must read its anchors from this very Settlement.
    function test_ALogThatReadsAnotherSettlementIsRefused() external {
        ISettlement.Config memory wanted = config(EVERYTHING_PPM, standardTimes());
        address future = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        bytes32 separator = TypedData.domainSeparator(future);
        wanted.receiptLog = IReceiptLog(address(new ForeignDouble(separator, address(settlement))));
        reverts(abi.encodeWithSelector(ISettlement.WrongWiring.selector, address(wanted.receiptLog)));
        this.createSettlement(wanted);
    }

    /// @dev Epochs of a log must be activated by the operator whom Settlement pays.
    function test_AnEnclaveRegistryOfAnotherLogIsRefused() external {
        ISettlement.Config memory wanted = config(EVERYTHING_PPM, standardTimes());
        address future = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 3);
        wanted.receiptLog = IReceiptLog(create(RECEIPT_LOG, abi.encode(future)));
        ForeignDouble other = new ForeignDouble(TypedData.domainSeparator(future), future);
        wanted.enclaveRegistry = IEnclaveRegistry(
            create(ENCLAVE_REGISTRY, abi.encode(manager, other, verifier, ADMIN_DELAY, EPOCH_LIFETIME))
        );
        reverts(abi.encodeWithSelector(ISettlement.WrongWiring.selector, address(wanted.enclaveRegistry)));
        this.createSettlement(wanted);
    }

    /// @dev Else nobody could slash reserves, as Settlement obeys no other contract.
    function test_AFaultsContractThatSlashesElsewhereIsRefused() external {
        ISettlement.Config memory wanted = config(EVERYTHING_PPM, standardTimes());
        address future = futureAddress(5);
        wanted.receiptLog = IReceiptLog(create(RECEIPT_LOG, abi.encode(future)));
        wanted.gatewayRegistry = IGatewayRegistry(create(GATEWAY_REGISTRY, abi.encode(future)));
        bytes memory arguments = nodeRegistryArguments(future, futureAddress(2));
        wanted.nodeRegistry = INodeRegistry(create(NODE_REGISTRY, arguments));
        arguments = abi.encode(manager, wanted.receiptLog, verifier, ADMIN_DELAY, EPOCH_LIFETIME);
        wanted.enclaveRegistry = IEnclaveRegistry(create(ENCLAVE_REGISTRY, arguments));
        ForeignDouble other = new ForeignDouble(TypedData.domainSeparator(future), address(settlement));
        wanted.faults = IObjectiveFaults(address(other));
        reverts(abi.encodeWithSelector(ISettlement.WrongWiring.selector, address(other)));
        this.createSettlement(wanted);
    }

    function test_AHistoryContractThatAnswersOtherwiseKnowsNoBlock() external {
        Verdict memory verdict = verdictFor(logId, 0xe2);
        verdict.blockNumber = 500;
        vm.etch(BLOCK_HISTORY, type(ShortHistory).runtimeCode);
        bytes memory evidence = evidenceFor(verdict);
        bytes4 refusal = IEnclaveRegistry.BlockHashMismatch.selector;
        reverts(abi.encodeWithSelector(refusal, 500, verdict.blockHash, bytes32(0)));
        vm.prank(OPERATOR);
        enclaveRegistry.activate(verdict, evidence);
    }

    function test_ThereIsNoMoreToDebitThanDeposits() external {
        depositAndAssign(STRANGER, 100);
        settle(nextBatch(row(STRANGER, 60), row(ADMIN, 60), 0));
        eq(settlement.debitableNow(logId), 40); // the limit of 100 % counts from what the window began with
    }

    function test_ConstantsAndDelaysCanBeRead() external view {
        eq(settlement.MAX_FEE_BPS(), 1_000);
        eq(enclaveRegistry.epochLifetime(), EPOCH_LIFETIME);
        eq(enclaveRegistry.delay(), ADMIN_DELAY);
        eq(nodeRegistry.payoutDelay(), PAYOUT_DELAY);
    }

    function createSettlement(ISettlement.Config calldata wanted) external {
        create(SETTLEMENT, abi.encode(wanted));
    }

    function createEnclaveRegistry(bytes calldata arguments) external {
        create(ENCLAVE_REGISTRY, arguments);
    }
}
