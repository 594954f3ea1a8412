// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Creates contracts at addresses that are known before
/// @notice The contracts of a deployment are constructed with each other's addresses, in a circle. Who
/// counts them from its own nonce loses the count with any other transaction; this contract's nonce moves
/// with its launches alone, so a deployment may break off and go on later, and its account do other things
/// meanwhile. Not needed any more when the deployment stands; nothing trusts it.
///
/// Proves nothing about what was launched: the contracts check each other, and `pinaivu roles` their code.
interface ILauncher {
    /// @notice Launch `number` created `created`.
    event Launched(uint8 indexed number, address created);

    error NotOwner(address caller);
    /// @notice Launches count from 1, without gaps; the next one is `next`.
    error WrongNumber(uint8 next, uint8 given);
    /// @notice Numbers end where their encoding has another length: 1 to 127.
    error NumberOutOfRange(uint8 number);

    /// @notice Creates the next contract; by the account that created this one, as whoever came first could
    /// put another contract at the address. What its constructor reverts with comes through, and nothing
    /// has happened then.
    /// @param number What the caller takes the launch's number to be.
    /// @param code Creation code.
    /// @param arguments The constructor's arguments, encoded as a call's: the first four bytes are left out.
    function launch(
        uint8 number,
        bytes calldata code,
        bytes calldata arguments
    ) external returns (address created);

    /// @notice Address of the contract that launch `number` creates or created.
    function addressOf(uint8 number) external view returns (address);

    /// @notice The one that may launch.
    function owner() external view returns (address);
}
