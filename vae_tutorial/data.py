"""Digits as tensors, offline first: 5,000 of them ship with the package, more are found or downloaded."""

import hashlib
import math
import os
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets

DATASETS = ("mnist-5k", "mnist", "fashion-mnist")
SHIPPED_FILE = "mnist_5k.npz"
SHIPPED_SHA256 = "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent / "data"
_SHIPPED = (_CHECKOUT if (_CHECKOUT / SHIPPED_FILE).exists() else _PACKAGE / "shipped") / SHIPPED_FILE
_TORCHVISION = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}


class Images(NamedTuple):
    """A data set, split: images (N, 1, 32, 32) float32 in [-1, 1], labels (N,) int64 from 0 to 9."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_images(name=None):
    """Load a data set by name, or the one that VAE_TUTORIAL_DATASET names, or mnist-5k, which ships.

    Returns Images: (N, 1, 32, 32) float32 in [-1, 1] and labels (N,); 4,000 + 1,000 images of mnist-5k,
    60,000 + 10,000 of mnist and fashion-mnist. Files are looked for in VAE_TUTORIAL_DATA, the checkout's
    data folder and the user's cache, then downloaded to the first of these that can be written.
    Raises ValueError for an unknown name or a broken file, FileNotFoundError when nothing can be found or downloaded.
    """
    name = name or os.environ.get("VAE_TUTORIAL_DATASET") or "mnist-5k"
    if name not in DATASETS:
        raise ValueError(f"The data set {name!r} is unknown: choose one of {', '.join(DATASETS)}.")
    parts = _read_shipped() if name == "mnist-5k" else _read_torchvision(name)
    return Images(_as_images(parts[0]), parts[1].long(), _as_images(parts[2]), parts[3].long())


class Loader:
    """Iterate over (images, labels) in shuffled batches; the tensors are sliced whole, on the device they are on.

    images: (N, C, H, W), labels: (N,); a pass gives every image once, the last batch may be smaller.
    Every pass has an order of its own; the same seed gives the same orders. seed=None keeps the order as it is.
    Raises ValueError for a batch size below 1, no images, or another number of labels.
    """

    def __init__(self, images, labels, batch_size=32, seed=0):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but is {batch_size!r}.")
        if len(images) == 0 or len(images) != len(labels):
            raise ValueError(f"Needs as many labels as images, at least one; got {len(images)} and {len(labels)}.")
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self):
        return math.ceil(len(self.images) / self.batch_size)

    def __iter__(self):
        order = torch.arange(len(self.images))
        if self.generator is not None:
            order = torch.randperm(len(self.images), generator=self.generator)
        for index in order.to(self.images.device).split(self.batch_size):
            yield self.images[index], self.labels[index]


def _as_images(pixels):
    """Resize bytes (N, 28, 28) from 0 to 255 to floats (N, 1, 32, 32) from -1 to 1, once and for all."""
    chunks = [chunk[:, None].float() for chunk in pixels.split(10_000)]
    return torch.cat([F.interpolate(chunk, size=32, mode="bilinear") / 127.5 - 1 for chunk in chunks])


def _folders():
    """List where a data set may lie, in the order in which it is looked for."""
    named = os.environ.get("VAE_TUTORIAL_DATA")
    return [
        *([Path(named).expanduser()] if named else []),
        *([_CHECKOUT] if _SHIPPED.parent == _CHECKOUT else []),
        platformdirs.user_cache_path("vae_tutorial"),
    ]


def _read_shipped():
    """Read the shipped digits; every fifth of each class's 500 is held out."""
    if not _SHIPPED.is_file() or hashlib.sha256(_SHIPPED.read_bytes()).hexdigest() != SHIPPED_SHA256:
        raise ValueError(f"The digits that ship, {_SHIPPED}, are missing or broken: install vae_tutorial again.")
    with np.load(_SHIPPED, allow_pickle=False) as file:
        pixels, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    held_out = torch.arange(len(labels)) % 5 == 4
    return pixels[~held_out], labels[~held_out], pixels[held_out], labels[held_out]


def _read_torchvision(name):
    """Read a data set in torchvision's layout from the first folder that holds it, else download it."""
    kind = _TORCHVISION[name]
    folder = next((f for f in _folders() if _raw(f, kind).is_dir()), None) or _download(name)
    try:
        train, test = kind(folder, train=True), kind(folder, train=False)
        sizes = [tuple(part.shape) for part in (train.data, train.targets, test.data, test.targets)]
        if sizes != [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]:
            raise ValueError(f"it holds arrays of shape {sizes}")
    except Exception as error:
        raise ValueError(
            f"The data set {name} in {_raw(folder, kind)} is broken or incomplete ({_one_line(error)}): delete that "
            f"folder to download it again, or use VAE_TUTORIAL_DATASET=mnist-5k, the digits that ship."
        ) from error
    return train.data, train.targets, test.data, test.targets


def _download(name):
    """Let torchvision download and verify a data set beside its place, then move it there; return the folder."""
    kind, problems = _TORCHVISION[name], []
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as unfinished:
                kind(unfinished, download=True)
                _raw(folder, kind).parent.mkdir(exist_ok=True)
                _raw(unfinished, kind).rename(_raw(folder, kind))
            return folder
        except OSError as error:  # this folder cannot be written: try the next
            problems.append(f"{folder}: {_one_line(error)}")
        except (RuntimeError, HTTPException) as error:  # no mirror answered: another folder would not help
            problems.append(_one_line(error))
            break
    raise FileNotFoundError(
        f"The data set {name} is on none of {', '.join(map(str, _folders()))} and could not be downloaded "
        f"({'; '.join(problems)}): set VAE_TUTORIAL_DATA to a folder that holds it, or use "
        f"VAE_TUTORIAL_DATASET=mnist-5k, the digits that ship."
    )


def _raw(folder, kind):
    return Path(folder) / kind.__name__ / "raw"


def _one_line(error):
    return " ".join(str(error).split())
