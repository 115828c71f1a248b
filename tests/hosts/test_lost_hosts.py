"""Faults of whole hosts and of the network between them, while a real search runs over three of them."""

import json
import signal
import sys
import time

import pytest

from nas_cluster.cluster.operations.chaos import audit
from nas_cluster.cluster.session.lease import LEASE_SECONDS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

LOST = ("worker_lost", "part_lost")
ISOLATED = {
    "mode": "asynchronous",
    "estimator": {"isolated": True, "duration": {"seconds": 0.5}},
    "topology": {"controller_replicas": 2, "children_per_replica": 2, "parameter_shards": 1, "replicas_per_actor": 2},
    "failures": {"retries": 3},
    "budget": {"max_children": 10_000},
    "cache": False,
}


@pytest.fixture
def searching(cluster, simulated_job):
    """A search that is under way on both workers, and the second of them."""
    searches = []

    def start(name, **changes):
        config = simulated_job(name=name, **{**ISOLATED, **changes})
        searches.append(cluster.search(config))
        searches[0].wait_done(8, 240)
        searches[0].started_with = searches[0].events(*LOST)  # before anything was broken: none on a quiet machine
        return searches[0], cluster.workers[1]

    yield start
    for search in searches:
        search.stop()


def notice(search):
    """Seconds until the loss of a part is in the journal."""
    return search.wait(lambda: search.events(*LOST) > search.started_with, 60, "a sign of the loss")


def end(search, children=12):
    """Let the search do some more children, stop it, and look at its account."""
    search.wait_done(search.done() + children, 240)
    search.signal(signal.SIGTERM)
    assert search.finish(120) == 75, search.text()
    account = audit(search.record())
    assert account["numbered_twice"] == account["numbers_missing"] == account["duplicates_refused"] == 0, account
    return account


def test_a_link_that_is_cut_silently(cluster, searching, measured):
    search, host = searching("cut")
    place = cluster.network.hosts.index(host)
    before = search.done()
    cluster.network.cut(place)
    noticed = notice(search)
    cut_at = time.monotonic() - noticed
    search.wait(lambda: not cluster.running(host, "cluster.children.main"), 120, "end of the orphans")
    orphans = time.monotonic() - cut_at
    search.wait_done(before + 12, 240)
    cluster.network.mend(place)
    time.sleep(3)
    account = end(search)
    cluster.rejoin(host)
    measured("link cut silently", f"noticed in {noticed:.1f} s, orphans gone in {orphans:.1f} s, {account}")
    assert noticed < 20
    assert orphans < LEASE_SECONDS + 10


@pytest.mark.soak
def test_a_worker_host_that_is_killed(cluster, searching, measured):
    search, host = searching("killed")
    host.power_off()
    noticed = notice(search)
    account = end(search)
    host.boot()
    cluster.start_ray(host)
    measured("worker node killed", f"noticed in {noticed:.1f} s, {account}")
    assert noticed < 10


@pytest.mark.soak
@pytest.mark.parametrize("fault,within", [("node_stop", 10), ("node_drain", 30 + 10)])
def test_a_node_that_the_injector_takes(cluster, searching, measured, fault, within):
    search, _ = searching(fault.replace("_", "-"))
    command = [sys.executable, "-m", "nas_cluster.cli", "chaos", str(search.directory), "--json"]
    command += ["--faults", fault, "--every", "8", "--minutes", "0.25"]  # one: the next would be due after the end
    struck = cluster.head.run(command, cluster.environment(cluster.head), timeout=200)
    assert struck.returncode == 0, struck.stdout + struck.stderr
    (injected,) = json.loads(struck.stdout)["injected"]
    (gone,) = [host for host in cluster.workers if not cluster.running(host, "raylet/raylet")]
    account = end(search)
    cluster.rejoin(gone)
    assert injected["noticed"] is not None
    assert injected["went_on"] is not None
    seconds = f"noticed in {injected['noticed']:.1f} s, went on in {injected['went_on']:.1f} s"
    measured(f"chaos: {fault}", f"{seconds}, {account}")
    assert injected["noticed"] < within


@pytest.mark.soak
@pytest.mark.parametrize("direction", ["from_host", "to_host"])
def test_loss_in_one_direction(cluster, searching, measured, direction):
    search, host = searching(f"one-way-{direction}")
    place = cluster.network.hosts.index(host)
    cluster.network.lose(place, **{"from_host": 0.0, "to_host": 0.0, direction: 1.0})
    noticed = notice(search)
    cut_at = time.monotonic() - noticed
    search.wait(lambda: not cluster.running(host, "cluster.children.main"), 120, "end of the orphans")
    orphans = time.monotonic() - cut_at
    cluster.network.mend(place)
    account = end(search)
    cluster.rejoin(host)
    measured(f"one-way loss, {direction}", f"noticed in {noticed:.1f} s, orphans gone in {orphans:.1f} s, {account}")
    assert noticed < 20
    assert orphans < LEASE_SECONDS + 10


@pytest.mark.soak
def test_30_percent_loss_and_an_outage_of_5_seconds_kill_nobody(cluster, searching, measured):
    search, host = searching("lossy")
    place = cluster.network.hosts.index(host)
    before = search.done()
    cluster.network.lose(place, from_host=0.3, to_host=0.3)
    time.sleep(60)
    lossy = search.done() - before
    cluster.network.mend(place)
    search.wait_done(search.done() + 4, 60)
    cluster.network.cut(place)
    time.sleep(5)
    cluster.network.mend(place)
    time.sleep(LEASE_SECONDS + 5)
    deaths = search.events(*LOST) - search.started_with
    account = end(search)
    measured("30 % loss for 60 s, then a 5 s outage", f"{deaths} deaths, {lossy} children meanwhile, {account}")
    assert deaths == 0
    assert lossy > 0
