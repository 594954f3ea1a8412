// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Where a party is served: URLs and multiaddrs
/// @notice Bounds what a reader of a registry must take in for one entry. What the strings say is not
/// checked: whoever reads them parses them as anybody's words.
library Endpoints {
    uint256 internal constant MOST = 8;
    /// @notice A host name has at most 253 characters, a multiaddr with two peer ids fewer than 200.
    uint256 internal constant MOST_BYTES = 256;

    error TooManyEndpoints(uint256 given, uint256 most);
    /// @notice Endpoint `position`, counted from 0, is empty or too long.
    error EndpointLength(uint256 position, uint256 given, uint256 most);

    /// @notice Reverts unless there are at most {MOST} endpoints of 1 to {MOST_BYTES} bytes. None is fine:
    /// the party is not served now.
    function check(string[] calldata endpoints) internal pure {
        uint256 count = endpoints.length;
        if (count > MOST) revert TooManyEndpoints(count, MOST);
        for (uint256 i = 0; i < count; ++i) {
            uint256 length = bytes(endpoints[i]).length;
            if (length == 0 || length > MOST_BYTES) revert EndpointLength(i, length, MOST_BYTES);
        }
    }
}
