"""A node that nobody can reach serves a request: it dials out, and is found by nobody's address."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pinaivu.codes import Status
from pinaivu.encoding import to_hex
from pinaivu.local.children import Child
from tests.e2e.house import ADDRESS, House, house, permitted, reachable
from tests.e2e.stage import Stage, request_id_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.netns,
    pytest.mark.timeout(600),
]

NODE = "node-1"
PROMPT = "What is the capital of France? Answer in one sentence."


@contextmanager
def behind_nat(stage: Stage) -> Iterator[House]:
    """The node's process moves into the house, and back after; it knows ids and no addresses."""
    network = stage.network
    config = json.loads(network.folder.config(NODE).read_text())
    said = [
        place
        for log in config["logs"]
        for place in network.chain.client.log_endpoints(bytes.fromhex(log["log_id"][2:]))
    ]
    record = network.chain.client.gateway(network.folder.key("gateway").address)
    assert record
    places = [config["chain"]["rpc"], *said, *record.endpoints]
    ports = [int(port) for port in re.findall(r"127\.0\.0\.1(?::|/tcp/)(\d+)", " ".join(places))]
    peers = {int(port) for port in re.findall(r"/tcp/(\d+)", " ".join(places))}
    old = network.children[NODE]
    old.stop()
    with house(ports) as made:
        child = Child(NODE, made.enter(old.command), network.folder.log(NODE))
        network.children[NODE] = child
        child.start()
        try:
            network.await_market()
            made.peers = peers
            yield made
        finally:
            child.stop()
    stage.revive_node(NODE)


def require_unreachable(made: House) -> None:
    """Whoever listens inside, on every address, is found from the inside and from nowhere else."""
    listener = made.do(lambda: socket.create_server(("0.0.0.0", 0)))  # noqa: S104 - in there
    port = listener.getsockname()[1]
    for address in (ADDRESS, "127.0.0.1"):
        assert made.do(lambda address=address: reachable(port, address))  # type: ignore[misc]
        assert not reachable(port, address)
    listener.close()


def test_a_node_behind_nat_serves_a_request(stage: Stage) -> None:
    """Gateway, coordinator, node: over the streams that the node itself has dialed."""
    if not permitted():
        pytest.skip("network namespaces are not permitted here: run this test as root")
    address = stage.network.folder.key(NODE).address
    only = {"pinaivu": {"allow": [to_hex(address)]}}
    with behind_nat(stage) as made:
        require_unreachable(made)
        answer = stage.ask(PROMPT, max_tokens=48, extra_body=only)
        content = answer.choices[0].message.content
        assert content
        assert "Paris" in content
        receipt = stage.await_final(request_id_of(answer))
        assert receipt.status == Status.COMPLETED
        assert [segment.node for segment in receipt.segments] == [address]
        assert {port for port in made.dialed_out if made.dialed_out[port]} >= made.peers
