"""Every kind of dataset on disk keeps what datasets promise, and reads the pixels and labels that its files hold."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_cluster.core.component import known_kinds
from nas_cluster.datasets import Dataset
from nas_cluster.datasets.digits import Digits
from nas_cluster.datasets.image_folder import ImageFolder
from nas_cluster.datasets.npz import Npz
from nas_cluster.testing import check_dataset


@pytest.mark.parametrize("kind", known_kinds(Dataset))
def test_every_dataset_keeps_the_contract(example, kind):
    check_dataset(example(kind))


def test_digits_are_scaled_and_split_by_class():
    from sklearn.datasets import load_digits

    data = Digits().load()
    assert (len(data.y_train), len(data.y_test)) == (1442, 355)
    published = load_digits()
    assert np.array_equal(np.bincount(data.y_test), np.bincount(published.target) // 5)
    theirs = sorted((int(y), tuple(x.ravel())) for x, y in zip(published.images, published.target, strict=True))
    x, y = np.concatenate([data.x_train, data.x_test]) / 255 * 16, np.concatenate([data.y_train, data.y_test])
    ours = sorted((int(label), tuple(image.ravel().round())) for image, label in zip(x, y, strict=True))
    assert ours == theirs


@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist"])
def test_idx_pixels_and_labels(example, kind):
    dataset = example(kind)
    data = dataset.load()
    for name, expected, head in (("images-idx3", data.x_train, 16), ("labels-idx1", data.y_train, 8)):
        file = next(dataset.folder.glob(f"train-{name}-ubyte*"))
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert expected.astype(np.uint8).tobytes() == raw[head:]
    assert data.x_train.shape == (20, 28, 28, 1)


def test_idx_files_are_also_found_where_torchvision_keeps_them(example):
    dataset = example("mnist")
    raw = dataset.folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    before = dataset.load()
    for file in dataset.folder.glob("*.gz"):
        file.rename(raw / file.name)
    moved = type(dataset)(root=dataset.root, download=False).load()
    assert np.array_equal(moved.x_train, before.x_train)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_planes_become_channels(example, kind):
    dataset = example(kind)
    first = next(file for file in sorted(dataset.folder.glob("*/*")) if file.name in ("data_batch_1", "train"))
    stored = pickle.loads(first.read_bytes())
    data = dataset.load()
    assert np.array_equal(data.x_train[5], stored["data"][5].reshape(3, 32, 32).transpose(1, 2, 0))
    assert data.y_train[5] == 5


def test_svhn_calls_a_zero_zero(example):
    data = example("svhn").load()
    assert data.y_train.tolist() == list(range(10)) * 2
    assert data.x_train.shape == (20, 32, 32, 3)


def test_npz_takes_grey_images_without_a_channel_axis(example):
    path = example("npz").file
    with np.load(path) as arrays:
        np.savez(path, **{name: arrays[name][..., 0] if name[0] == "x" else arrays[name] for name in arrays})
    assert Npz(path=str(path)).load().x_train.shape == (9, 6, 7, 1)


def test_image_folder_resizes_and_sorts(example):
    root = Path(example("image_folder").root)
    (root / "train" / ".checkpoints").mkdir()
    (root / "train" / "cats" / "._0.png").write_bytes(b"what some systems leave beside a file")
    Image.new("RGB", (50, 40), (255, 0, 0)).save(root / "train" / "dogs" / "9.jpg", quality=95)
    data = ImageFolder(root=str(root), height=8, width=10).load()
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert np.abs(data.x_train[6].astype(int) - [255, 0, 0]).max() <= 2
    assert ImageFolder(root=str(root), mode="L").load().x_train.shape == (7, 32, 32, 1)
    full = ImageFolder(root=str(root), height=20, width=30).load()
    assert np.array_equal(full.x_train[0], np.asarray(Image.open(root / "train" / "cats" / "0.png")))


def test_relative_paths_start_at_the_current_folder(example, monkeypatch):
    path = example("npz").file
    monkeypatch.chdir(path.parent)
    assert np.array_equal(Npz(path=path.name).load().x_train, Npz(path=str(path)).load().x_train)
    assert Npz(path=path.name).identity() == Npz(path=str(path)).identity()
