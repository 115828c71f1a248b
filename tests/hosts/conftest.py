"""One Ray cluster of a head and two workers, each a host of its own, for all tests of a module that need one."""

import pytest
from ray_hosts import RayHosts
from simulated_hosts import Network, why_not


@pytest.fixture(scope="session")
def can_simulate_hosts():
    reason = why_not()
    if reason:
        pytest.skip(f"hosts cannot be simulated here: {reason}")


@pytest.fixture(scope="module")
def cluster(can_simulate_hosts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    with Network(3, folder) as network:
        hosts = RayHosts(network, folder)
        hosts.start()
        yield hosts
