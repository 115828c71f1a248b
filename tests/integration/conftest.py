"""One Ray cluster for all tests that need one: on loopback, in a folder of its own, ended with the test session."""

import os

import pytest


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory):
    import ray

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        namespace="nas_cluster",
    )
    assert ray.util.get_node_ip_address() == "127.0.0.1"
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
