// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IObjectiveFaults} from "../../../contracts/interfaces/IObjectiveFaults.sol";
import {TypedData} from "../../../contracts/libraries/TypedData.sol";

/// @dev Stands where Settlement expects the contract that slashes; tests act in its name.
contract FaultsDouble is IObjectiveFaults {
    address public immutable settlement;
    bytes32 public immutable domainSeparator;

    constructor(address settlement_) {
        settlement = settlement_;
        domainSeparator = TypedData.domainSeparator(settlement_);
    }
}
