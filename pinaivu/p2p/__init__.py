"""Bytes between peers: the only place in the tree that touches libp2p.

    errors    what can go wrong, by blame
    frames    `FrameStream`: length-prefixed frames over one stream, a queue and a writer for each
    host      `open_host`: dialing, listening, streams and liveness under one identity key
    links     a connection that is kept up, and pools of streams opened ahead of need
    calls     request, reply and push over one `FrameStream`
    library, connections   all that is known about the library and its version:
              a host of it; what it makes, connections and their streams

Peers are named by the text of their libp2p peer id (``16Uiu2HA…``), which inlines their public
key: `pinaivu.keys.point_of_peer_id` gives the point. Addresses are multiaddr text. What the frames
mean is `pinaivu.p2p.wire`'s business, and nothing here knows about money or models.
"""

from typing import NewType

PeerId = NewType("PeerId", str)
"""The text of a peer id that a noise handshake has proven, or that we expect one to prove."""
