"""What travels with a job, and what is refused."""

import sys

import pytest

from nas_cluster import bundle
from nas_cluster.bundle import JOB_FILE, pack
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import ConfigError

SPACE = """
from my_blocks_for_bundle import EXTRA
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN

class Mine(LayerwiseCNN):
    extra: int = EXTRA
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("my_space_for_bundle", "my_blocks_for_bundle", "my_package_for_bundle"):
        sys.modules.pop(name, None)


def test_a_job_carries_the_package_its_config_the_users_modules_and_relative_data(here, simulated_job, tmp_path):
    (here / "my_space_for_bundle.py").write_text(SPACE)
    (here / "my_blocks_for_bundle.py").write_text("EXTRA = 3\n")
    (here / "not_asked_for.py").write_text("")
    (here / "data").mkdir()
    (here / "data" / "mine.npz").write_bytes(b"1")
    (here / "notes.txt").write_text("for later")
    config = simulated_job(space={"kind": "my_space_for_bundle:Mine"}, dataset={"kind": "npz", "path": "data/mine.npz"})
    folder = tmp_path / "job"
    carried = pack(config, folder, [here / "notes.txt"])
    assert carried == ["data/mine.npz", "my_blocks_for_bundle.py", "my_space_for_bundle.py", "notes.txt"]
    assert JobConfig.load(folder / JOB_FILE) == config
    inside = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"nas_cluster/job.py", "nas_cluster/storage/schema.sql", "data/mine.npz"} <= inside
    assert not [name for name in inside if "__pycache__" in name]
    assert "not_asked_for.py" not in inside


def test_a_job_without_a_dataset_carries_none(here, simulated_job, tmp_path):
    config = simulated_job(dataset="none")
    assert pack(config, tmp_path / "job") == []
    assert JobConfig.load(tmp_path / "job" / JOB_FILE) == config


def test_absolute_paths_are_places_that_the_nodes_know(here, simulated_job, tmp_path):
    (here / "mine.npz").write_bytes(b"1")
    config = simulated_job(dataset={"kind": "npz", "path": str(here / "mine.npz")})
    assert pack(config, tmp_path / "job") == []


def test_what_is_too_large_or_elsewhere_is_refused(here, simulated_job, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "_MOST_BYTES", 5_000_000)
    (here / "big.npz").write_bytes(bytes(6_000_000))
    config = simulated_job(dataset={"kind": "npz", "path": "big.npz"})
    with pytest.raises(ConfigError, match=r"big\.npz: a job carries at most 5 MB, this is 6; put it on storage"):
        pack(config, tmp_path / "job")
    for path in (tmp_path, here / "missing"):
        with pytest.raises(ConfigError, match="only such can travel"):
            pack(simulated_job(), tmp_path / "job", [path])
