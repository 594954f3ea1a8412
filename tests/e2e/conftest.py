"""One real local network for all end-to-end tests; every test ends with an audit of all of it.

It is stopped with the last of them: an idle network, too, takes a tenth of a core.
"""

from collections.abc import Iterator

import pytest

from pinaivu.local.folder import Folder
from pinaivu.local.network import Network
from pinaivu.local.payer import ensure_grant, new_api_key
from tests.e2e.audit import audit
from tests.e2e.stage import Stage


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network in a folder of its own: chain, two logs, gateway, three nodes, real engine."""
    made = Network(Folder(tmp_path_factory.mktemp("network")), say=print, logs=2, undisturbed=False)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="package")
def whole_stage(network: Network) -> Stage:
    for log in network.logs:
        ensure_grant(network.folder, network.chain.client, log.log_id, log.payer)
    return Stage(network, new_api_key(network.folder, "end-to-end"))


@pytest.fixture(scope="package")
def whole_double_stage(whole_stage: Stage) -> Stage:
    network = whole_stage.network
    payers = [log.payer for log in network.logs]
    return Stage(network, new_api_key(network.folder, "two logs", payers))


@pytest.fixture
def double_stage(whole_double_stage: Stage) -> Iterator[Stage]:
    """The network with a key on it that has a payer at each of its two logs; audited, too."""
    yield whole_double_stage
    audit(whole_double_stage.network)


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The network with a key on it; what the test left behind is audited."""
    yield whole_stage
    audit(whole_stage.network)
