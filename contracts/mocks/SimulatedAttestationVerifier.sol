// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAttestationVerifier} from "../interfaces/IAttestationVerifier.sol";
import {TypedData, Verdict} from "../libraries/TypedData.sol";

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title SIMULATED attestation verifier, for local networks only
/// @notice Believes one throw-away key that signs verdicts about simulated documents. No hardware is
/// behind it and a passed check proves nothing about any enclave.
contract SimulatedAttestationVerifier is IAttestationVerifier {
    using TypedData for Verdict;

    uint256 private constant ANVIL_AND_HARDHAT = 31_337;
    uint256 private constant GANACHE = 1_337;

    /// @notice EIP-712 separator of the deployment.
    bytes32 public immutable domainSeparator;
    /// @notice Address of the simulator's key.
    address public immutable simulator;

    /// @notice This chain might hold real money.
    error OnlyOnLocalChains(uint256 chainId);
    error WrongSimulator(address simulator, address signer);

    /// @param settlement Future address of Settlement.
    constructor(address settlement, address simulator_) {
        if (block.chainid != ANVIL_AND_HARDHAT && block.chainid != GANACHE) {
            revert OnlyOnLocalChains(block.chainid);
        }
        domainSeparator = TypedData.domainSeparator(settlement);
        simulator = simulator_;
    }

    /// @inheritdoc IAttestationVerifier
    /// @param evidence The simulator's signature over the verdict.
    function check(Verdict calldata verdict, bytes calldata evidence) external view {
        bytes32 digest = TypedData.digest(domainSeparator, verdict.hash());
        address signer = ECDSA.recoverCalldata(digest, evidence);
        if (signer != simulator) revert WrongSimulator(simulator, signer);
    }

    /// @inheritdoc IAttestationVerifier
    function description() external pure returns (string memory) {
        return "SIMULATED: a local test key vouches for documents without hardware; proves nothing";
    }

    /// @inheritdoc IAttestationVerifier
    /// @dev The key is fixed for good.
    function changeDelay() external pure returns (uint32) {
        return type(uint32).max;
    }
}
