"""The cache: loaded once per machine, whatever happens to the processes and the files."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dataset_files import images, labels, npz_file

from nas_cluster.core.errors import DataError
from nas_cluster.datasets import Dataset, ImageArrays, resident
from nas_cluster.datasets.digits import Digits
from nas_cluster.datasets.npz import Npz

LOADS = []


class Counted(Dataset):
    name: str
    classes: int = 3

    def load(self):
        LOADS.append(self.name)
        time.sleep(0.05)  # long enough for others to arrive
        return ImageArrays(images(9, 4, 4, 1), labels(9, 3), images(3, 4, 4, 1), labels(3, 3), classes=self.classes)

    def identity(self):
        return {"name": self.name}


def test_workers_that_start_together_load_once(cache):
    """Each thread opens the lock file for itself, and so competes as a process does."""
    ready = threading.Barrier(8)

    def worker(_):
        ready.wait()
        return resident(Counted(name="together"))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(worker, range(8)))
    assert LOADS.count("together") == 1
    assert all(isinstance(data.x_train, np.memmap) and not data.x_train.flags.writeable for data in found)
    assert all(np.array_equal(data.x_train, images(9, 4, 4, 1)) for data in found)
    assert not list(cache.rglob("*.partial"))


@pytest.mark.parametrize("name", ["x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy", "about.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", None, "cut"])
def test_a_damaged_entry_is_rebuilt(cache, name, damage):
    resident(Digits())
    (file,) = cache.glob(f"datasets/*/{name}")
    whole = file.read_bytes()
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(whole[:-10] if damage == "cut" else damage)
    again, expected = resident(Digits()), Digits().load()
    assert file.read_bytes() == whole
    assert np.array_equal(again.x_train, expected.x_train)
    assert np.array_equal(again.y_test, expected.y_test)


def test_what_a_killed_process_left_is_cleared_away(cache):
    resident(Digits())
    (about,) = cache.glob("datasets/*/about.json")
    folder = about.parent
    folder.rename(folder.with_suffix(".partial"))
    (folder.with_suffix(".partial") / "x_train.npy").write_bytes(b"half")
    assert np.array_equal(resident(Digits()).x_train, Digits().load().x_train)
    assert not folder.with_suffix(".partial").exists()


def test_a_changed_file_is_another_dataset(cache, tmp_path):
    dataset = Npz(**npz_file(tmp_path))
    assert resident(dataset).x_train.shape == (9, 6, 7, 3)
    npz_file(tmp_path, x_train=images(9, 5, 5, 3), x_test=images(6, 5, 5, 3))
    assert resident(dataset).x_train.shape == (9, 5, 5, 3)


def test_a_dataset_that_breaks_its_promise_is_refused_and_not_kept(cache):
    with pytest.raises(DataError, match="dataset .*Counted: y_train has label 2; labels are 0 to 1"):
        resident(Counted(name="broken", classes=2))
    assert not list(cache.rglob("about.json"))


def test_a_cache_folder_that_cannot_be_used(cache):
    cache.write_text("a file")
    with pytest.raises(DataError, match=r"cannot keep the decoded dataset in .* NAS_CLUSTER_CACHE"):
        resident(Digits())


def test_without_a_folder_of_its_own_the_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("NAS_CLUSTER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    resident(Digits())
    (about,) = tmp_path.glob("nas_cluster/datasets/*/about.json")
    assert json.loads(about.read_text())["classes"] == 10
