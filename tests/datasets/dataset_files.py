"""Small files in the format of every dataset; each function returns the options of the dataset that reads them."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
from PIL import Image


def images(n, *shape):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n, classes=10):
    return np.arange(n) % classes


def write_idx(path, array):
    data = (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def idx_files(folder, end=".gz"):
    for part, n in (("train", 20), ("t10k", 10)):
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", images(n, 28, 28))
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", labels(n))
    return {"root": str(folder)}


def cifar_files(folder, monkeypatch, name, label_key, classes, train):
    """torchvision compares MD5 sums with those of the published files, so it is told those of ours."""
    from torchvision import datasets

    published = getattr(datasets, name)
    base = folder / published.base_folder
    base.mkdir()

    def write(file, content):
        (base / file).write_bytes(pickle.dumps(content))
        return [file, hashlib.md5((base / file).read_bytes()).hexdigest()]

    def batch(file, n):
        return write(file, {"data": images(n, 3072), label_key: labels(n, classes).tolist()})

    monkeypatch.setattr(published, "train_list", [batch(file, 100) for file in train])
    monkeypatch.setattr(published, "test_list", [batch("test", 20)])
    meta = published.meta
    _, md5 = write(meta["filename"], {meta["key"]: [str(i) for i in range(classes)]})
    monkeypatch.setattr(published, "meta", {**meta, "md5": md5})
    return {"root": str(folder), "download": False}


def svhn_files(folder, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    parts = {}
    for part, n in (("train", 20), ("test", 10)):
        file = folder / f"{part}_32x32.mat"
        y = np.where(labels(n) == 0, 10, labels(n))  # SVHN calls the digit 0 class 10
        savemat(file, {"X": images(n, 32, 32, 3).transpose(1, 2, 3, 0), "y": y[:, None]})
        parts[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", parts)
    return {"root": str(folder), "download": False}


def npz_file(folder, name="mine.npz", **changes):
    """changes: an array, or None to leave it out."""
    arrays = {
        "x_train": images(9, 6, 7, 3),
        "y_train": labels(9, 3).astype(np.uint16),
        "x_test": images(6, 6, 7, 3),
        "y_test": labels(6, 3),
    } | changes
    np.savez_compressed(folder / name, **{key: array for key, array in arrays.items() if array is not None})
    return {"path": str(folder / name)}


def image_files(folder, **options):
    for part, n in (("train", 3), ("test", 2)):
        for name in ("cats", "dogs"):
            (folder / part / name).mkdir(parents=True)
            for i, pixels in enumerate(images(n, 20, 30, 3)):
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return {"root": str(folder), **options}


TEXTS = {"train": "the cat sat\non the mat\n", "validation": "the cat\n", "test": "on the mat\n"}


def text_files(folder, **texts):
    """The three texts as files of these names; each a str, or bytes."""
    options = {}
    for name, text in (TEXTS | texts).items():
        path = folder / f"{name}.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        options[name] = str(path)
    return options


def ptb_files(folder):
    """A space at both ends of every line, as in the published files."""
    for name, text in zip(("train", "valid", "test"), TEXTS.values(), strict=True):
        (folder / f"ptb.{name}.txt").write_text("".join(f" {line} \n" for line in text.splitlines()))
    return {"root": str(folder)}
