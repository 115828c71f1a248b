"""Every dataset, on files in its own format that the test writes; and what is said of broken ones."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from nas_cluster.core.errors import DataError
from nas_cluster.datasets import resident, train_validation_split
from nas_cluster.datasets.cifar10 import CIFAR10
from nas_cluster.datasets.cifar100 import CIFAR100
from nas_cluster.datasets.digits import Digits
from nas_cluster.datasets.fashion_mnist import FashionMNIST
from nas_cluster.datasets.image_folder import ImageFolder
from nas_cluster.datasets.mnist import MNIST
from nas_cluster.datasets.npz import Npz
from nas_cluster.datasets.svhn import SVHN
from nas_cluster.testing import check_dataset

RNG = np.random.default_rng(0)


def images(n, *shape):
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n, classes=10):
    return np.arange(n) % classes


def test_digits():
    check_dataset(Digits())
    data = Digits().load()
    assert (len(data.y_train), len(data.y_test)) == (1442, 355)
    assert data.x_train.max() == 255


def write_idx(path, array, zipped):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if zipped else data)


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_in_a_folder(tmp_path, kind, zipped):
    end = ".gz" if zipped else ""
    x_train, x_test = images(20, 28, 28), images(10, 28, 28)
    write_idx(tmp_path / f"train-images-idx3-ubyte{end}", x_train, zipped)
    write_idx(tmp_path / f"train-labels-idx1-ubyte{end}", labels(20), zipped)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{end}", x_test, zipped)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{end}", labels(10), zipped)
    dataset = kind(root=str(tmp_path))
    check_dataset(dataset)
    assert np.array_equal(dataset.load().x_train[..., 0], x_train)
    whole = (tmp_path / f"train-images-idx3-ubyte{end}").read_bytes()
    for damaged, message in [
        (whole[: len(whole) // 2], "cut short|cannot be decompressed"),
        (b"nonsense", "not an IDX file|cannot be decompressed"),
    ]:
        (tmp_path / f"train-images-idx3-ubyte{end}").write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            dataset.load()
    (tmp_path / f"t10k-labels-idx1-ubyte{end}").unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
        dataset.load()


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_cifar_in_torchvisions_files(tmp_path, monkeypatch, kind):
    """The same files as the published ones, small; torchvision checks their MD5, so the test tells it theirs."""
    from torchvision import datasets

    published = getattr(datasets, kind.__name__)
    key, classes = ("labels", 10) if kind is CIFAR10 else ("fine_labels", 100)
    folder = tmp_path / published.base_folder
    folder.mkdir()

    def write(name, n):
        data = {"data": images(n, 3072), key: labels(n, classes).tolist()}
        (folder / name).write_bytes(pickle.dumps(data))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    names = ["data_batch_1", "data_batch_2"] if kind is CIFAR10 else ["train"]
    monkeypatch.setattr(published, "train_list", [write(name, 100) for name in names])
    monkeypatch.setattr(published, "test_list", [write("test_batch", 20)])
    meta = {published.meta["key"]: [str(i) for i in range(classes)]}
    (folder / published.meta["filename"]).write_bytes(pickle.dumps(meta))
    md5 = hashlib.md5((folder / published.meta["filename"]).read_bytes()).hexdigest()
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": md5})
    dataset = kind(root=str(tmp_path), download=False)
    check_dataset(dataset)
    first = pickle.loads((folder / names[0]).read_bytes())["data"][0]
    assert np.array_equal(dataset.load().x_train[0], first.reshape(3, 32, 32).transpose(1, 2, 0))
    (folder / names[0]).write_bytes(b"damaged")
    with pytest.raises(DataError, match="torchvision finds no whole copy in .* set download: true"):
        dataset.load()


def test_svhn_in_torchvisions_files(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN as Published

    split = {}
    for part, n in (("train", 20), ("test", 10)):
        y = labels(n) + 1  # SVHN calls the digit 0 class 10
        savemat(tmp_path / f"{part}_32x32.mat", {"X": images(n, 32, 32, 3).transpose(1, 2, 3, 0), "y": y[:, None]})
        md5 = hashlib.md5((tmp_path / f"{part}_32x32.mat").read_bytes()).hexdigest()
        split[part] = ["", f"{part}_32x32.mat", md5]
    monkeypatch.setattr(Published, "split_list", split)
    check_dataset(SVHN(root=str(tmp_path), download=False))


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3)])
def test_npz(tmp_path, shape):
    path = tmp_path / "mine.npz"
    good = {"x_train": images(9, *shape), "y_train": labels(9, 3), "x_test": images(6, *shape), "y_test": labels(6, 3)}
    np.savez(path, **good)
    dataset = Npz(path=str(path))
    check_dataset(dataset)
    wrong = {
        "has no array 'y_test'": {"y_test": None},
        "x_train must be uint8": {"x_train": good["x_train"].astype(float)},
        "y_train must be 9 integers": {"y_train": labels(8, 3)},
        "label -1": {"y_train": labels(9, 3) - 1},
        "y_test has label 7": {"y_test": labels(6, 3) + 5},
        "x_train has images": {"x_test": images(6, 5, 5)},
        "not a readable .npz": {"y_train": np.array([object()] * 9)},
    }
    for message, change in wrong.items():
        np.savez(path, **{k: v for k, v in {**good, **change}.items() if v is not None})
        with pytest.raises(DataError, match=message):
            dataset.load()
    path.write_bytes(b"PK damaged")
    with pytest.raises(DataError, match="not a readable .npz"):
        dataset.load()
    with pytest.raises(DataError, match=r"no file .*mime.npz; did you mean 'mine.npz'"):
        Npz(path=str(tmp_path / "mime.npz")).load()
    with pytest.raises(DataError, match="is a folder"):
        Npz(path=str(tmp_path)).load()


def test_image_folder(tmp_path):
    for part, n in (("train", 3), ("test", 2)):
        for name in ("cats", "dogs"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(images(1, 20, 30, 3)[0]).save(folder / f"{i}.png")
    check_dataset(ImageFolder(root=str(tmp_path), height=8, width=10))
    assert ImageFolder(root=str(tmp_path), mode="L").load().x_train.shape == (6, 32, 32, 1)
    (tmp_path / "test" / "cats" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0.png: cannot be read as an image"):
        ImageFolder(root=str(tmp_path)).load()
    for i in range(2):
        (tmp_path / "test" / "dogs" / f"{i}.png").unlink()
    with pytest.raises(DataError, match=r"dogs: holds no image"):
        ImageFolder(root=str(tmp_path)).load()
    (tmp_path / "test" / "dogs").rmdir()
    with pytest.raises(DataError, match="class 'dogs' is not in both"):
        ImageFolder(root=str(tmp_path)).load()
    with pytest.raises(DataError, match="no folder .*nowhere"):
        ImageFolder(root=str(tmp_path / "nowhere")).load()


def test_a_damaged_cache_is_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_CLUSTER_CACHE", str(tmp_path))
    before = resident(Digits()).x_train.copy()
    for file in tmp_path.glob("datasets/*/x_train.npy"):
        file.write_bytes(file.read_bytes()[:1000])
    assert np.array_equal(resident(Digits()).x_train, before)


@pytest.mark.parametrize("validation", [1, 300, 0.1, 0.5, 1441])
def test_the_validation_split_is_stratified_disjoint_and_by_seed(validation):
    y = Digits().load().y_train
    training, held_out = train_validation_split(y, validation, 0)
    count = round(validation * len(y)) if isinstance(validation, float) else validation
    assert len(held_out) == count
    assert np.array_equal(np.sort(np.concatenate([training, held_out])), np.arange(len(y)))
    share = count / len(y)
    for label in range(10):
        assert abs((y[held_out] == label).sum() - share * (y == label).sum()) <= 1
    again = train_validation_split(y, validation, 0)[1]
    assert np.array_equal(held_out, again)
    if validation == 300:
        assert not np.array_equal(held_out, train_validation_split(y, validation, 1)[1])


@pytest.mark.parametrize("validation", [0, 1442, 5000])
def test_an_impossible_split_is_refused(validation):
    with pytest.raises(DataError, match="leaves a part empty"):
        train_validation_split(Digits().load().y_train, validation, 0)
