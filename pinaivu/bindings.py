"""The peer key's consent to its owner: what accompanies every registration."""

from pinaivu.codes import Role
from pinaivu.keys import SecretKey
from pinaivu.messages import PeerBinding
from pinaivu.typed_data import Domain, Signed


def sign_peer_binding(domain: Domain, owner: bytes, role: Role, peer: SecretKey) -> bytes:
    """`peer`'s signature that it belongs to `owner` (20 bytes) in this role. Timeless."""
    x, y = peer.point[:32], peer.point[32:]
    binding = PeerBinding(owner=owner, role=role, peer_x=x, peer_y=y)
    return Signed.by(peer, domain, binding).signature
