"""What is said of missing and broken files: one line each, what was looked for and where."""

import random
from pathlib import Path

import numpy as np
import pytest
from dataset_files import images, labels, npz_file, write_idx
from PIL import Image

from nas_cluster.core.errors import DataError
from nas_cluster.datasets.cifar10 import CIFAR10
from nas_cluster.datasets.fashion_mnist import FashionMNIST
from nas_cluster.datasets.image_folder import ImageFolder
from nas_cluster.datasets.mnist import MNIST
from nas_cluster.datasets.npz import Npz


def said(dataset):
    """The error of loading `dataset`, which is one line."""
    with pytest.raises(DataError) as caught:
        dataset.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist"])  # gzipped, plain
def test_idx_files(example, kind):
    dataset = example(kind)
    folder = dataset.folder
    x = next(folder.glob("train-images*"))
    y = next(folder.glob("t10k-labels*"))
    whole_x, whole_y = x.read_bytes(), y.read_bytes()
    for damaged, message in [
        (whole_x[: len(whole_x) // 2], "cannot be read" if x.suffix == ".gz" else "its head promises"),
        (whole_x[:10], "cannot be read" if x.suffix == ".gz" else "its head promises"),
        (whole_x + b"\0more", "cannot be read" if x.suffix == ".gz" else "its head promises"),
        (b"nonsense", "cannot be read" if x.suffix == ".gz" else "is not an IDX file of bytes (magic number 6e6f6e73)"),
        (b"", "is not an IDX file of bytes (magic number missing)"),
        (whole_y, f"{folder}: the train files hold (10,) images"),
    ]:
        x.write_bytes(damaged)
        assert message in said(dataset)
    x.write_bytes(whole_x)
    write_idx(y, labels(10) + 1)
    assert f"{folder}: y_test has label 10; labels are 0 to 9" in said(dataset)
    write_idx(y, labels(9))
    assert "y_test must be 10 integers, is int64 (9,)" in said(dataset)
    y.rename(folder / "t10k-labels.idx1-ubyte.gz")
    assert "no file" in said(dataset)
    assert "t10k-labels-idx1-ubyte.gz; did you mean 't10k-labels.idx1-ubyte.gz'?" in said(dataset)


def test_a_broken_file_of_torchvisions_mnist_is_named(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"abc")
    assert f"{raw / 'train-images-idx3-ubyte'}: is not an IDX file" in said(MNIST(root=str(tmp_path)))


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, CIFAR10])
def test_a_published_dataset_that_is_not_there(tmp_path, kind):
    (tmp_path / "images").mkdir()
    message = said(kind(root=str(tmp_path / "image"), download=False))
    assert message == f"dataset.root: no folder {tmp_path / 'image'}; did you mean 'images'?"
    assert not (tmp_path / "image").exists(), "looking for data leaves no folders behind"
    message = said(kind(root=str(tmp_path / "images"), download=False))
    assert f"a file in {tmp_path / 'images'} is missing or not the published one; set download: true" in message
    (tmp_path / "file").touch()
    assert "file is a file, a folder is needed" in said(kind(root=str(tmp_path / "file")))


def test_a_failed_download(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10 as Published

    def offline(self):
        raise RuntimeError("Error downloading a file:\nTried it, got:\nno network\n")

    monkeypatch.setattr(Published, "download", offline)
    message = said(CIFAR10(root=str(tmp_path)))
    assert f"dataset cifar10: cannot be fetched into {tmp_path} (Error downloading a file: Tried it, got: no" in message


def test_cifar_files_that_are_not_the_published_ones_are_never_unpickled(example, tmp_path):
    dataset = example("cifar10")
    touched = tmp_path / "touched"
    batch = next(dataset.folder.glob("*/data_batch_2"))
    batch.write_bytes(b"cpathlib\nPath.touch\n(cpathlib\nPath\n(V%s\ntRtR." % str(touched).encode())
    assert "is missing or not the published one" in said(dataset)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("has no array 'y_test'; it holds x_train, y_train, x_test", {"y_test": None}),
        ("x_train must be uint8 (N, H, W, C) and not empty, is float64", {"x_train": images(9, 6, 7, 3) / 255}),
        ("x_test must be uint8", {"x_test": images(6, 6)}),
        ("x_test must be uint8", {"x_test": images(0, 6, 7, 3), "y_test": labels(0)}),
        ("y_train must be 9 integers, is int64 (8,)", {"y_train": labels(8, 3)}),
        ("y_train must be integers, is float64", {"y_train": labels(9, 3) / 1}),
        ("y_train has label -1", {"y_train": labels(9, 3) - 1}),
        ("y_train has label -9223372036854775808", {"y_train": labels(9, 3).astype(np.uint64) + 2**63}),
        ("y_train has no label 0; each of 0 to 3 must occur", {"y_train": labels(9, 3) + 1}),
        ("y_train has no label 1; each of 0 to 4 must occur", {"y_train": labels(9, 3) * 2}),
        ("y_test has label 5; labels are 0 to 2", {"y_test": labels(6, 3) + 5}),
        ("x_train has images (6, 7, 3), x_test (5, 5, 3)", {"x_test": images(6, 5, 5, 3)}),
        ("is not a readable .npz file of plain arrays", {"y_train": np.array([object()] * 9)}),
    ],
)
def test_npz_arrays(tmp_path, message, changes):
    options = npz_file(tmp_path, **changes)
    assert f"{options['path']}: {message}" in said(Npz(**options))


def test_npz_files(tmp_path):
    path = Path(npz_file(tmp_path)["path"])
    assert f"no file {tmp_path / 'mime.npz'}; did you mean 'mine.npz'?" in said(Npz(path=str(tmp_path / "mime.npz")))
    assert f"{tmp_path} is a folder, a file is needed" in said(Npz(path=str(tmp_path)))
    assert f"there is no folder {tmp_path / 'no'} either" in said(Npz(path=str(tmp_path / "no" / "mine.npz")))
    np.save(tmp_path / "one.npy", images(9, 6, 7))
    assert "not a readable .npz file of plain arrays (it is one .npy array)" in said(
        Npz(path=str(tmp_path / "one.npy"))
    )
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            Npz(path=str(path)).load()
        except DataError as error:
            assert str(error).startswith(str(path))


def test_image_folders(example, tmp_path):
    dataset = example("image_folder")
    root = Path(dataset.root)
    image = root / "train" / "cats" / "0.png"
    whole = image.read_bytes()
    length = whole.index(b"IDAT") - 4
    chunks = whole[:length] + (100).to_bytes(4, "big") + whole[length + 4 :]  # Pillow calls the next one a SyntaxError
    for damaged in (b"", b"no image", whole[: len(whole) // 2], chunks):
        image.write_bytes(damaged)
        assert f"{image}: cannot be read as an image" in said(dataset)
    rng = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(2):
            damaged[rng.randrange(8, len(whole))] ^= rng.randrange(1, 256)
        image.write_bytes(damaged)
        try:
            dataset.load()
        except DataError as error:
            assert str(error).startswith(str(image))
    Image.fromarray(np.full((8, 8), 60000, np.uint16)).save(image)
    assert "more than 8 bits per pixel" in said(dataset)
    image.write_bytes(whole)
    for file in (root / "test" / "dogs").iterdir():
        file.unlink()
    assert f"{root / 'test' / 'dogs'}: holds no image (.jpeg, .jpg, .png)" in said(dataset)
    (root / "test" / "dogs").rmdir()
    assert "class 'dogs' is not in both train and test" in said(dataset)
    (root / "test").rename(root / "tests")
    assert f"no folder {root / 'test'}; did you mean 'tests'?" in said(dataset)
    assert f"no folder {tmp_path / 'nowhere'}" in said(ImageFolder(root=str(tmp_path / "nowhere")))
    (tmp_path / "flat" / "train").mkdir(parents=True)
    assert "it must hold one per class" in said(ImageFolder(root=str(tmp_path / "flat")))
