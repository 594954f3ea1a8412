// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev RFC 9162 as its definitions read (MTH, PATH, SUBPROOF): slow, and made to be compared with.
library ReferenceTree {
    function root(bytes32[] memory leaves, uint256 size) internal pure returns (bytes32) {
        return size == 0 ? sha256("") : _root(leaves, 0, size);
    }

    /// @dev PATH(index, D_size)
    function inclusion(
        bytes32[] memory leaves,
        uint256 index,
        uint256 size
    ) internal pure returns (bytes32[] memory) {
        return _path(leaves, index, 0, size);
    }

    /// @dev PROOF(oldSize, D_newSize), empty from size 0 and to the same size.
    function consistency(
        bytes32[] memory leaves,
        uint256 oldSize,
        uint256 newSize
    ) internal pure returns (bytes32[] memory) {
        if (oldSize == 0) return new bytes32[](0);
        return _subproof(leaves, oldSize, 0, newSize, true);
    }

    function _root(bytes32[] memory leaves, uint256 from, uint256 to) private pure returns (bytes32) {
        if (to - from == 1) return leaves[from];
        uint256 middle = from + _split(to - from);
        return sha256(abi.encodePacked(hex"01", _root(leaves, from, middle), _root(leaves, middle, to)));
    }

    function _path(
        bytes32[] memory leaves,
        uint256 index,
        uint256 from,
        uint256 to
    ) private pure returns (bytes32[] memory) {
        if (to - from == 1) return new bytes32[](0);
        uint256 middle = from + _split(to - from);
        if (index < middle) {
            return _append(_path(leaves, index, from, middle), _root(leaves, middle, to));
        }
        return _append(_path(leaves, index, middle, to), _root(leaves, from, middle));
    }

    function _subproof(
        bytes32[] memory leaves,
        uint256 oldSize,
        uint256 from,
        uint256 to,
        bool whole
    ) private pure returns (bytes32[] memory) {
        if (oldSize == to) {
            return whole ? new bytes32[](0) : _append(new bytes32[](0), _root(leaves, from, to));
        }
        uint256 middle = from + _split(to - from);
        if (oldSize <= middle) {
            return _append(_subproof(leaves, oldSize, from, middle, whole), _root(leaves, middle, to));
        }
        return _append(_subproof(leaves, oldSize, middle, to, false), _root(leaves, from, middle));
    }

    /// @dev The largest power of two below `size`.
    function _split(uint256 size) private pure returns (uint256 power) {
        power = 1;
        while (power * 2 < size) power *= 2;
    }

    function _append(bytes32[] memory list, bytes32 item) private pure returns (bytes32[] memory longer) {
        longer = new bytes32[](list.length + 1);
        for (uint256 i = 0; i < list.length; ++i) {
            longer[i] = list[i];
        }
        longer[list.length] = item;
    }
}
