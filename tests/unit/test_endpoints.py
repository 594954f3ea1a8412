"""Registry strings are anybody's words: what is dialed, and what is passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinaivu.endpoints import MOST, Endpoints, parse_endpoints, without_peer

PEER = "16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY"


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/8.8.8.8/tcp/4001",
        "/ip6/2606:4700::1111/tcp/1",
        "/dns/coordinator.example.org/tcp/65535",
        "/dns4/a.example/tcp/4001",
        "/dns6/a.example/tcp/4001",
    ],
)
def test_public_tcp_addresses_are_dialed(text: str) -> None:
    assert parse_endpoints([text]) == Endpoints(multiaddrs=(text,))
    assert parse_endpoints([text]).under(PEER) == (f"{text}/p2p/{PEER}",)


@pytest.mark.parametrize(
    "text", ["https://log.example", "http://8.8.8.8:9000/log", "http://[2606:4700::1111]:80"]
)
def test_public_urls_are_read(text: str) -> None:
    assert parse_endpoints([text]) == Endpoints(urls=(text,))


HOSTILE = [
    "",
    "/",
    "8.8.8.8:4001",
    "/ip4/8.8.8.8",
    "/ip4/8.8.8.8/tcp/0",
    "/ip4/8.8.8.8/tcp/65536",
    "/ip4/8.8.8.8/tcp/04001",
    "/ip4/8.8.8.8/tcp/4001\n",
    "/ip4/8.8.8.8/tcp/4001/",
    "/ip4/8.8.8.8/tcp/4001/ws",
    "/ip4/8.8.8.8/tcp/4001/tls/ws",
    "/ip4/8.8.8.8/udp/4001/quic-v1",
    f"/ip4/8.8.8.8/tcp/4001/p2p/{PEER}",
    f"/ip4/8.8.8.8/tcp/4001/p2p/{PEER}/p2p-circuit",
    "/unix/var/run/docker.sock",
    "/ip6/8.8.8.8/tcp/4001",
    "/ip4/2606:4700::1111/tcp/4001",
    "/ip4/8.8.8/tcp/4001",
    "/ip4/0x8080808/tcp/4001",
    "/ip6zone/eth0/ip6/fe80::1/tcp/4001",
    "/ip6/fe80::1%eth0/tcp/4001",
    "/dns/127.1/tcp/4001",
    "/dns/-a.example/tcp/4001",
    "/dns/a..example/tcp/4001",
    "/dns/" + "a" * 64 + ".example/tcp/4001",
    "/dnsaddr/bootstrap.example/tcp/4001",
    "file:///etc/passwd",
    "ftp://8.8.8.8/",
    "gopher://8.8.8.8/",
    "http://",
    "http://user:word@8.8.8.8/",
    "http://8.8.8.8:0/",
    "http://8.8.8.8:99999/",
    "http://8.8.8.8/?next=http://10.0.0.1",
    "http://8.8.8.8/#part",
    "http://[::1",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://8.8.8.8/\r\nHost: other",
    "https://" + "a." * 150 + "example",
    "/dns/" + "a." * 150 + "example/tcp/4001",
    "/dns/xn--\u202e.example/tcp/4001",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_this_network_does_not_speak_is_passed_over(text: str) -> None:
    """Whatever the network allows; and nothing beside it is lost."""
    good = "/ip4/8.8.8.8/tcp/4001"
    assert parse_endpoints([text, good], private=True) == Endpoints(multiaddrs=(good,))


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/22",
        "/ip4/10.0.0.1/tcp/4001",
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/169.254.169.254/tcp/80",
        "/ip4/100.64.0.1/tcp/80",
        "/ip4/0.0.0.0/tcp/4001",
        "/ip4/224.0.0.1/tcp/4001",
        "/ip4/255.255.255.255/tcp/4001",
        "/ip6/::1/tcp/4001",
        "/ip6/fd00::1/tcp/4001",
        "/ip6/fe80::1/tcp/4001",
        "/ip6/::ffff:127.0.0.1/tcp/4001",
        "/ip6/2002:7f00:1::/tcp/4001",
        "/dns/localhost/tcp/4001",
        "/dns/db.internal/tcp/5432",
        "/dns/printer.local/tcp/4001",
        "/dns/intranet/tcp/4001",
        "http://127.0.0.1:8545",
        "http://169.254.169.254/latest",
        "http://[::ffff:10.0.0.1]/",
        "http://localhost:9000",
    ],
)
def test_private_doors_are_not_knocked_at_unless_told_so(text: str) -> None:
    """A stranger's entry can't point a node at its own machine or network."""
    assert parse_endpoints([text]) == Endpoints()
    assert parse_endpoints([text], private=True) != Endpoints()


def test_no_more_than_the_registry_allows() -> None:
    """The chain bounds an entry; an endpoint that lies about the chain doesn't."""
    many = [f"/ip4/8.8.8.8/tcp/{port}" for port in range(1, 1000)]
    assert parse_endpoints(many).multiaddrs == tuple(many[:MOST])
    assert parse_endpoints(many[:1] * 5).multiaddrs == (many[0],)


def test_a_peer_is_taken_off_only_where_it_is_the_expected_one() -> None:
    at = "/ip4/8.8.8.8/tcp/4001"
    assert without_peer(f"{at}/p2p/{PEER}", PEER) == at
    assert without_peer(f"{at}/p2p/{PEER}x", PEER) is None
    assert without_peer(at, PEER) is None


@given(st.lists(st.text(max_size=300) | st.from_regex(r"/ip[46]/.{0,40}/tcp/.{0,6}")))
def test_nothing_anybody_writes_is_an_error(texts: list[str]) -> None:
    """And whatever is taken over is one of the strings, in a form without surprises."""
    found = parse_endpoints(texts, private=True)
    for text in (*found.urls, *found.multiaddrs):
        assert text in texts[:MOST]
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
