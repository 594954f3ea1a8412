// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev A libp2p peer key and its point.
struct Peer {
    uint256 key;
    bytes32 x;
    bytes32 y;
}

/// @dev Points of a few fixed keys: the test runner can sign, but not multiply points.
library Peers {
    error NoSuchPeer(uint256 number);

    function get(uint256 number) internal pure returns (Peer memory peer) {
        if (number == 0) {
            return
                Peer(
                    0x9ee71,
                    0x6a41dc27eb14989d56716bf2faf1c8572f3b05d4e91c48f27bc420b88e8e7a77,
                    0x901adc71cd51614f78802233cd54d416ebc43f82839641792a9ef90034eb7c9a
                );
        }
        if (number == 1) {
            return
                Peer(
                    0x9ee72,
                    0xb0c375244bbfdeff747530ad8e09e4b0311dd083d08aca694bb6853198bfe636,
                    0xb7cc0d994e1b348e86ca078c1d663cd053b83ffdb1d017dc4d54aceef0719cd8
                );
        }
        if (number == 2) {
            return
                Peer(
                    0x9ee73,
                    0xd107613c9bb642dfe9cc24fceda0634bb82783bbd4fea702c4341c77e116efb9,
                    0xcd7180b3bf83a57232662a2c2f2557d06a6835b12e2966d377b6eb4fab0f3efe
                );
        }
        if (number == 3) {
            return
                Peer(
                    0x9ee74,
                    0x74fcc9519a69f14babd77c1e6bc17afe86e6d50078765a46942b359f42ee65c0,
                    0x2224fe5f8eee4767ffe8964f44195808bcebe20afc93148424ea30eb13f5f57c
                );
        }
        if (number == 4) {
            return
                Peer(
                    0x9ee75,
                    0x15be32a4385218e5d31f7e84fd261f21baeea72acc96f4e23994fd77f337c58e,
                    0x133317448e8c3e49ccf2d146cfdc3be8a0022e949c4dca3dcc51c4df84ea49a1
                );
        }
        if (number == 5) {
            return
                Peer(
                    0x9ee76,
                    0x9fd484c9096055a21455e417956aae9ad059caad34adaa4c932611f75d56b14f,
                    0x0980fa96fcad836617b680c817c344ee85ddc1db0c0acdcb531f76a8c2df1f55
                );
        }
        revert NoSuchPeer(number);
    }
}
