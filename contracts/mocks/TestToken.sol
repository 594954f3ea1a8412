// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title Play money for local networks and tests
/// @notice 6 decimals, ERC-2612 permit, and anyone may mint: worth nothing.
contract TestToken is ERC20Permit {
    constructor() ERC20("Pinaivu Test Dollar", "TUSD") ERC20Permit("Pinaivu Test Dollar") {}

    /// @notice Makes `amount` base units out of nothing.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice As the tokens that deployments settle in.
    function decimals() public pure virtual override returns (uint8) {
        return 6;
    }
}
