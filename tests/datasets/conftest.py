"""A small example of every kind of dataset, and a cache of one test's own."""

import pytest
from dataset_files import cifar_files, idx_files, image_files, npz_file, ptb_files, svhn_files, text_files

from nas_cluster.core.component import find_component
from nas_cluster.datasets import Dataset


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("NAS_CLUSTER_CACHE", str(folder))
    return folder


@pytest.fixture
def example(tmp_path, monkeypatch):
    """`example(kind)`: a dataset of that kind. A kind without files of its own is built with its defaults."""
    folder = tmp_path / "files"
    folder.mkdir()
    files = {
        "mnist": lambda: idx_files(folder),
        "fashion_mnist": lambda: idx_files(folder, end=""),
        "cifar10": lambda: cifar_files(folder, monkeypatch, "CIFAR10", "labels", 10, ["data_batch_1", "data_batch_2"]),
        "cifar100": lambda: cifar_files(folder, monkeypatch, "CIFAR100", "fine_labels", 100, ["train"]),
        "svhn": lambda: svhn_files(folder, monkeypatch),
        "npz": lambda: npz_file(folder),
        "image_folder": lambda: image_files(folder, height=8, width=10),
        "text_files": lambda: text_files(folder),
        "penn_treebank": lambda: ptb_files(folder),
    }

    def make(kind):
        return find_component(Dataset, kind)(**files.get(kind, dict)())

    return make
