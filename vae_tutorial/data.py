"""Digits as tensors, offline first: 5,000 come with the package, other sets are read from a folder or downloaded."""

import hashlib
import io
import math
import os
import socket
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import numpy as np
import platformdirs
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import download_and_extract_archive

DATASETS = ("mnist-5k", "mnist", "fashion-mnist")
SHIPPED_FILE = "mnist_5k.npz"
SHIPPED_SHA256 = "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"
SHA256 = {  # of the unpacked files, in the order of Images; torchvision publishes the MD5 of the packed files
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
TIMEOUT = 20  # seconds to wait for data from a mirror

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
    """Load the named data set, or the one that VAE_TUTORIAL_DATASET names, or mnist-5k, which comes with the package.

    Returns Images: (N, 1, 32, 32) float32 in [-1, 1] and labels (N,); 4,000 + 1,000 images of mnist-5k,
    60,000 + 10,000 of mnist and fashion-mnist. Files are looked for in VAE_TUTORIAL_DATA, the checkout's
    data folder and the user's cache, then downloaded to the first of these that can be written.
    Raises ValueError for an unknown name or a file with another checksum, FileNotFoundError when nothing can be found
    or downloaded.
    """
    if name is None:
        name = os.environ.get("VAE_TUTORIAL_DATASET") or "mnist-5k"
    if name not in DATASETS:
        raise ValueError(f"The data set {name!r} is unknown: choose one of {', '.join(DATASETS)}.")
    parts = _read_shipped() if name == "mnist-5k" else _read_torchvision(name)
    return Images(_as_images(parts[0]), parts[1].long(), _as_images(parts[2]), parts[3].long())


class Loader:
    """Iterate over (images, labels) in shuffled batches; each batch is taken from the tensors at once, on their device.

    images: (N, C, H, W), labels: (N,); a pass gives every image once, the last batch may be smaller.
    Every pass has a new order; the same seed gives the same orders. With seed=None nothing is shuffled.
    """

    def __init__(self, images, labels, batch_size=32, seed=0):
        assert len(images) == len(labels), f"{len(images)} images, but {len(labels)} labels"
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
    """Convert bytes (N, 28, 28) from 0 to 255 to floats (N, 1, 32, 32) from -1 to 1."""
    chunks = pixels[:, None].split(500)  # 500 images fit into a processor's cache: half the time of 10,000
    return torch.cat([F.interpolate(chunk.float(), size=32, mode="bilinear") / 127.5 - 1 for chunk in chunks])


def _folders():
    """List the folders that may hold a data set, in the order of the search."""
    named = os.environ.get("VAE_TUTORIAL_DATA")
    return [
        *([Path(os.path.expanduser(named))] if named else []),
        *([_CHECKOUT] if _SHIPPED.parent == _CHECKOUT else []),
        platformdirs.user_cache_path("vae_tutorial"),
    ]


def _verified(path, sha256):
    """Read a file; raise ValueError unless its SHA-256 is the given one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path.name}: {len(content)} bytes with another checksum than the published file")
    return content


def _read_shipped():
    """Read the digits that come with the package; hold out every fifth of the 500 of each class."""
    try:
        content = _verified(_SHIPPED, SHIPPED_SHA256)
    except ValueError as error:
        raise ValueError(
            f"The digits that ship, {_SHIPPED}, are missing or broken ({error}): clone or install vae_tutorial again."
        ) from error
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        pixels, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    held_out = torch.arange(len(labels)) % 5 == 4
    return pixels[~held_out], labels[~held_out], pixels[held_out], labels[held_out]


def _read_torchvision(name):
    """Read a data set in torchvision's layout from the first folder that holds it, else download it."""
    holds = [folder for folder in _folders() if os.path.isdir(_raw(folder, name))]
    raw = _raw(holds[0] if holds else _download(name), name)
    try:
        return [_read_idx(raw / file, sha256) for file, sha256 in SHA256[name].items()]
    except ValueError as error:
        raise ValueError(
            f"The data set {name} in {raw} is broken or incomplete ({error}): delete that folder to have it downloaded "
            f"again or, if you may not, use VAE_TUTORIAL_DATASET=mnist-5k, the digits that ship."
        ) from error


def _read_idx(path, sha256):
    """Read one of torchvision's files, (N, 28, 28) or (N,); its header is skipped, because the checksum is verified."""
    shape, header = ((-1, 28, 28), 16) if "images" in path.name else ((-1,), 8)
    content = bytearray(_verified(path, sha256))  # torch.frombuffer needs memory that can be written
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(shape)


def _download(name):
    """Download a data set to a temporary folder, then move it to its place, in the first folder that can be written."""
    problems = []
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as unfinished:
                _fetch(name, _raw(unfinished, name))
                _move(_raw(unfinished, name), _raw(folder, name))
            return folder
        except ConnectionError as error:  # another folder would not help
            problems.append(_one_line(error))
            break
        except OSError as error:  # no room, or no permission to write
            problems.append(f"{folder}: {_one_line(error)}")
    raise FileNotFoundError(
        f"The data set {name} is on none of {', '.join(map(str, _folders()))} and could not be downloaded "
        f"({'; '.join(problems)}): try again when there is a network, set VAE_TUTORIAL_DATA to a folder that holds it "
        f"or has room for it, or use VAE_TUTORIAL_DATASET=mnist-5k, the digits that ship."
    )


def _fetch(name, raw):
    """Download a data set from the first mirror that delivers all of it."""
    kind, problems = _TORCHVISION[name], []
    # the first mirror of torchvision 0.21 is an http address that no longer exists
    for mirror in sorted(kind.mirrors, key=lambda url: not url.startswith("https:")):
        try:
            return _fetch_from(mirror, kind.resources, str(raw))
        # caught here, or _download would take the first three, subclasses of OSError, for a full disk
        except (URLError, TimeoutError, ConnectionError, HTTPException, RuntimeError, ValueError) as error:
            problems.append(f"{mirror}: {_one_line(error)}")
    raise ConnectionError("; ".join(problems))


def _fetch_from(mirror, resources, raw):
    """Let torchvision download, verify and unpack the files that it names, each with its MD5."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets no timeout, and would wait for ever
    try:
        for file, md5 in resources:
            download_and_extract_archive(mirror + file, raw, md5=md5)
    finally:
        socket.setdefaulttimeout(before)


def _move(finished, place):
    """Move a finished download to its place; if another process was faster, keep that process's files."""
    place.parent.mkdir(exist_ok=True)
    try:
        finished.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _raw(folder, name):
    return Path(folder) / _TORCHVISION[name].__name__ / "raw"


def _one_line(error):
    return " ".join(str(error).split())
