"""Data sets of a few random images in torchvision's files, which the package takes for the published ones."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch

from vae_tutorial import data

SHAPES = {
    "train-images-idx3-ubyte": (100, 28, 28),
    "train-labels-idx1-ubyte": (100,),
    "t10k-images-idx3-ubyte": (20, 28, 28),
    "t10k-labels-idx1-ubyte": (20,),
}


def small_set(seed=0):
    """Return the content of each file; all numbers are below 10, so that it packs well."""
    random, files = np.random.default_rng(seed), {}
    for name, shape in SHAPES.items():
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        files[name] = header + random.integers(10, size=shape, dtype="u1").tobytes()
    return files


def packed(files):
    return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}


def publish(monkeypatch, files, name="mnist", mirrors=("http://mirror/",)):
    """Make these the files whose checksums are known, and these the mirrors that give them."""
    kind = data._TORCHVISION[name]
    checksums = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    resources = [(file, hashlib.md5(content).hexdigest()) for file, content in packed(files).items()]
    monkeypatch.setitem(data.SHA256, name, checksums)
    monkeypatch.setattr(kind, "resources", resources)
    monkeypatch.setattr(kind, "mirrors", list(mirrors))


def isolate(monkeypatch, folder):
    """Keep every place of data sets in a folder; return them in the order in which they are looked at."""
    named, checkout, cache = [Path(folder, name) for name in ("named", "checkout", "cache")]
    monkeypatch.delenv("VAE_TUTORIAL_DATASET", raising=False)
    monkeypatch.setenv("VAE_TUTORIAL_DATA", str(named))
    monkeypatch.setattr(data, "_CHECKOUT", checkout)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: cache)
    return [named, checkout, cache]


def write_files(raw, files):
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)


def same(images, files):
    """Say whether these are the images and labels of the files, resized as the package does it."""
    train, train_labels, test, test_labels = [torch.frombuffer(bytearray(c), dtype=torch.uint8) for c in files.values()]
    resized = [data._as_images(pixels[16:].view(-1, 28, 28)) for pixels in (train, test)]
    expected = resized[0], train_labels[8:].long(), resized[1], test_labels[8:].long()
    return all(torch.equal(*parts) for parts in zip(images, expected, strict=True))


def names_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))
