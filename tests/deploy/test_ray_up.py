"""The cluster launcher's files: valid by Ray's schema, with authentication, and naming only what exists here."""

import re

import jsonschema
import pytest
from deploy_files import DEPLOY, HEALTH, documents, find, foreign_schema, images

CLUSTERS = {path.stem: documents(path)[0] for path in sorted((DEPLOY / "ray_up").glob("*.yaml"))}
each = pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)


def test_what_is_here():
    assert {name: cluster["provider"]["type"] for name, cluster in CLUSTERS.items()} == {"aws": "aws", "gcp": "gcp"}


@each
def test_valid_by_rays_schema(cluster):
    errors = list(jsonschema.Draft7Validator(foreign_schema("ray-up-schema.json")).iter_errors(cluster))
    assert not errors, [f"{list(error.path)}: {error.message[:200]}" for error in errors]


@each
def test_the_head_does_no_work_and_gpu_workers_are_spot_and_come_when_asked_for(cluster):
    nodes = cluster["available_node_types"]
    assert nodes[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert "--num-cpus=0" in " ".join(cluster["head_start_ray_commands"])
    gpu = nodes["gpu"]
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == 0 < gpu["max_workers"]
    assert "spot" in str(gpu["node_config"]).lower()


@each
def test_authentication_and_health_checks_are_on_in_every_container(cluster):
    environment = dict(option.removeprefix("--env ").split("=", 1) for option in cluster["docker"]["run_options"][1:])
    assert environment["RAY_AUTH_MODE"] == "token"
    token = environment["RAY_AUTH_TOKEN_PATH"]
    assert token in cluster["file_mounts"]
    assert f"chmod 600 {token}" in cluster["setup_commands"]
    assert HEALTH.items() <= {key: int(value) for key, value in environment.items() if value.isdigit()}.items()


@each
def test_images_and_options_of_ray_exist(cluster):
    docker = {key: value for key, value in cluster["docker"].items() if key.endswith("image")}
    assert {*docker.values(), *find(cluster["available_node_types"], "worker_image")} == images()
    scripts = pytest.importorskip("ray.scripts.scripts")
    known = {option for parameter in scripts.start.params for option in parameter.opts}
    for line in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]:
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line
