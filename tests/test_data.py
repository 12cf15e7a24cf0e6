"""Data sets, held against torchvision's Resize and the published bytes, in folders that are not as they should be."""

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_sets import SHAPES, isolate, publish, same, small_set, write_files
from torchvision import datasets
from torchvision.transforms.v2.functional import resize

from vae_tutorial import data
from vae_tutorial.data import DATASETS, load_images

REAL = os.environ.get("VAE_TUTORIAL_DATA", "")
FILES = small_set()
needs_real_mnist = pytest.mark.skipif(
    not os.path.isdir(os.path.join(REAL, "MNIST", "raw")), reason="VAE_TUTORIAL_DATA holds no MNIST/raw"
)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Keep every folder in tmp_path and every download a failure; return where data sets may lie, in their order."""

    def download(*args, **kwargs):
        raise RuntimeError("no network in tests")

    monkeypatch.setattr(data, "download_and_extract_archive", download)
    return isolate(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def digits():
    return load_images("mnist-5k")


@pytest.fixture(scope="module")
def shipped():
    with np.load(data._SHIPPED) as file:
        return torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])


def is_checkout(monkeypatch, folder):
    monkeypatch.setattr(data, "_SHIPPED", folder / data.SHIPPED_FILE)


def as_keys(images):
    return [image.numpy().tobytes() for image in images]


def refused(error_type, *pieces, name=None):
    with pytest.raises(error_type) as error:
        load_images(name)
    for piece in pieces:
        assert str(piece) in str(error.value)


def test_the_digits_that_ship_are_4000_and_1000_of_one_size(digits):
    assert [part.shape for part in digits] == [(4000, 1, 32, 32), (4000,), (1000, 1, 32, 32), (1000,)]
    assert [part.dtype for part in digits] == [torch.float32, torch.int64] * 2


def test_every_class_has_the_same_share_of_both_parts(digits):
    assert digits.train_labels.bincount().tolist() == [400] * 10
    assert digits.test_labels.bincount().tolist() == [100] * 10


@pytest.mark.parametrize("part", ["train_images", "test_images"])
def test_the_range_is_minus_1_to_1_and_both_are_reached(digits, part):
    images = getattr(digits, part)
    assert (images.min(), images.max()) == (-1, 1)


def test_no_image_is_in_both_parts(digits):
    train, test = set(as_keys(digits.train_images)), set(as_keys(digits.test_images))
    assert len(train) == 4000 and len(test) == 1000 and not train & test


def test_images_are_those_of_torchvisions_resize_with_their_own_labels(digits, shipped):
    pixels, labels = shipped
    held_out = torch.arange(len(labels)) % 5 == 4
    for part, images, own in ((~held_out, *digits[:2]), (held_out, *digits[2:])):
        torch.testing.assert_close(images, resize(pixels[part][:, None].float(), [32, 32]) / 127.5 - 1)
        assert torch.equal(own, labels[part].long())


def test_loading_twice_gives_the_same(digits):
    assert all(torch.equal(*parts) for parts in zip(digits, load_images(), strict=True))


@pytest.mark.parametrize("content", [b"", b"PK", data._SHIPPED.read_bytes()[:-1], b"<html>404</html>"])
def test_shipped_digits_that_are_not_those_that_ship_are_refused(content, tmp_path, monkeypatch):
    is_checkout(monkeypatch, tmp_path)
    data._SHIPPED.write_bytes(content)
    refused(ValueError, data._SHIPPED, "missing or broken", f"{len(content)} bytes", "install vae_tutorial again")


def test_one_changed_bit_of_the_shipped_digits_is_found(tmp_path, monkeypatch):
    content = bytearray(data._SHIPPED.read_bytes())
    content[len(content) // 2] ^= 1
    is_checkout(monkeypatch, tmp_path)
    data._SHIPPED.write_bytes(content)
    refused(ValueError, data._SHIPPED, "missing or broken", "another checksum", "install vae_tutorial again")


def test_a_missing_shipped_file_is_named(tmp_path, monkeypatch):
    is_checkout(monkeypatch, tmp_path / "empty")
    refused(ValueError, data._SHIPPED, "No such file", "install vae_tutorial again")


@pytest.mark.parametrize("by_variable", [True, False])
def test_an_unknown_name_is_refused(by_variable, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_DATASET", "emnist" if by_variable else "mnist-5k")
    refused(ValueError, "'emnist'", "choose one of", *DATASETS, name=None if by_variable else "emnist")


@given(st.text())
def test_any_other_name_is_refused(name):
    if name not in DATASETS:
        refused(ValueError, f"The data set {name!r} is unknown", "choose one of", *DATASETS, name=name)


def test_the_variable_names_the_data_set(monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_DATASET", "fashion-mnist")
    refused(FileNotFoundError, "fashion-mnist")


def test_the_argument_goes_before_the_variable(monkeypatch, digits):
    monkeypatch.setenv("VAE_TUTORIAL_DATASET", "fashion-mnist")
    assert torch.equal(load_images("mnist-5k").test_images, digits.test_images)


def test_an_empty_variable_counts_as_not_set(monkeypatch, digits):
    monkeypatch.setenv("VAE_TUTORIAL_DATASET", "")
    assert torch.equal(load_images().test_images, digits.test_images)


@needs_real_mnist
def test_the_real_mnist_is_found_and_read_as_torchvision_reads_it(monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_DATA", REAL)
    images, real = load_images("mnist"), datasets.MNIST(REAL, train=True)
    assert [len(part) for part in images] == [60_000, 60_000, 10_000, 10_000]
    assert torch.equal(images.train_labels, real.targets)
    torch.testing.assert_close(images.train_images[::997], resize(real.data[::997, None].float(), [32, 32]) / 127.5 - 1)


@needs_real_mnist
def test_the_digits_that_ship_are_digits_of_mnist(shipped):
    real = datasets.MNIST(REAL, train=True)
    known = dict(zip(as_keys(real.data), real.targets.tolist(), strict=True))
    assert [known[key] for key in as_keys(shipped[0])] == shipped[1].tolist()


@pytest.mark.parametrize("missing", [0, 1, 2])
@pytest.mark.parametrize(("name", "layout"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_the_first_folder_that_holds_the_set_is_read(name, layout, missing, folders, monkeypatch):
    is_checkout(monkeypatch, folders[1])
    for folder in folders[missing:]:
        (folder / layout / "raw").mkdir(parents=True)
    refused(ValueError, name, f"{folders[missing] / layout / 'raw'} is broken", name=name)


def test_without_a_checkout_its_folder_is_not_looked_at(folders):
    for folder in folders[1:]:
        (folder / "MNIST" / "raw").mkdir(parents=True)
    refused(ValueError, folders[2], name="mnist")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("VAE_TUTORIAL_DATA", "~/digits")
    (tmp_path / "digits" / "MNIST" / "raw").mkdir(parents=True)
    refused(ValueError, tmp_path / "digits", name="mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_labels_and_pixels_are_those_of_the_files(name, folders, monkeypatch):
    publish(monkeypatch, FILES, name)
    write_files(data._raw(folders[0], name), FILES)
    assert same(load_images(name), FILES)


@pytest.fixture
def raw(folders, monkeypatch):
    """Write a small set as it should be, without anything to download it from; return where it lies."""
    publish(monkeypatch, FILES)
    write_files(folders[0] / "MNIST" / "raw", FILES)
    return folders[0] / "MNIST" / "raw"


def broken(raw, file, *pieces):
    pieces = f"The data set mnist in {raw} is broken", file, "delete that folder", "if you may not", "mnist-5k", *pieces
    refused(ValueError, *pieces, name="mnist")


@pytest.mark.parametrize("file", SHAPES)
@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content + b"0",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: bytes([255] * 16) + content[16:],  # a header that announces 2**32 - 1 images
        lambda content: pickle.dumps(content),
        lambda content: b"<html>404</html>",
    ],
    ids=["empty", "header", "truncated", "longer", "one bit", "absurd header", "pickle", "page"],
)
def test_a_file_that_is_not_the_published_one_is_refused(change, file, raw):
    (raw / file).write_bytes(change(FILES[file]))
    broken(raw, file, "another checksum")


@given(st.sampled_from(list(SHAPES)), st.integers(0, 80_000), st.integers(0, 80_000), st.binary(max_size=50))
def test_no_other_bytes_are_ever_taken_for_a_file(tmp_path, file, start, end, other):
    path, content = tmp_path / file, FILES[file]
    path.write_bytes(content[: min(start, end)] + other + content[max(start, end) :])
    checksum = hashlib.sha256(content).hexdigest()
    if path.read_bytes() == content:
        assert data._verified(path, checksum) == content
    else:
        with pytest.raises(ValueError, match=f"{file}: .* another checksum"):
            data._verified(path, checksum)


@pytest.mark.parametrize("file", SHAPES)
def test_a_missing_file_is_named(file, raw):
    (raw / file).unlink()
    broken(raw, file, "No such file")


@pytest.mark.parametrize("file", SHAPES)
def test_a_folder_in_place_of_a_file_is_named(file, raw):
    (raw / file).unlink()
    (raw / file).mkdir()
    broken(raw, file)


def test_files_of_another_set_are_refused(raw):
    write_files(raw, small_set(seed=1))
    broken(raw, "train-images-idx3-ubyte", "another checksum")


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_is_unpickled_from_the_digits_that_ship(tmp_path, monkeypatch):
    bait, content = tmp_path / "executed", io.BytesIO()
    pickle.loads(pickle.dumps(Touch(bait))).close()
    bait.unlink()  # so the bait does work
    np.savez(content, images=np.array([Touch(bait)], object), labels=np.zeros(1))
    is_checkout(monkeypatch, tmp_path)
    data._SHIPPED.write_bytes(content.getvalue())
    refused(ValueError, "missing or broken")
    monkeypatch.setattr(data, "SHIPPED_SHA256", hashlib.sha256(content.getvalue()).hexdigest())
    refused(ValueError, "allow_pickle=False")
    assert not bait.exists()


def test_a_cache_of_an_older_torchvision_is_not_read(raw, tmp_path):
    processed = raw.parent / "processed"
    processed.mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save(Touch(tmp_path / "executed"), processed / file)
    assert same(load_images("mnist"), FILES) and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["with space", "Übungen für Anfänger", "数字", "🙂", "100%25", "it's", "#1 [a]", "~"])
@pytest.mark.parametrize("place", ["VAE_TUTORIAL_DATA", "cache", "checkout"])
def test_a_folder_of_any_name_holds_data(name, place, tmp_path, monkeypatch):
    folders = dict(zip(["VAE_TUTORIAL_DATA", "checkout", "cache"], isolate(monkeypatch, tmp_path / name), strict=True))
    is_checkout(monkeypatch, folders["checkout"])
    publish(monkeypatch, FILES)
    write_files(folders[place] / "MNIST" / "raw", FILES)
    assert same(load_images("mnist"), FILES)


@pytest.mark.parametrize("name", ["~nobody-here/data", "x" * 300, "a file/data"])  # too long for any file system
def test_a_folder_that_cannot_be_goes_to_the_next(name, folders, tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAE_TUTORIAL_DATA", name)
    publish(monkeypatch, FILES)
    refused(FileNotFoundError, os.path.expanduser(name), "no network in tests", name="mnist")
    write_files(folders[2] / "MNIST" / "raw", FILES)
    assert same(load_images("mnist"), FILES)


CHILD = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise OSError("no network in this test")
sys.addaudithook(refuse)
import vae_tutorial.data as data
print(ascii(data.__file__), data.load_images().train_labels.bincount().tolist())
"""


@pytest.mark.slow
def test_a_package_in_a_folder_of_any_name_loads_its_digits_without_touching_the_network(tmp_path, shipped):
    checkout = tmp_path / "Übung 1, für alle"
    shutil.copytree(Path(data.__file__).parent, checkout / "vae_tutorial", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(data._SHIPPED.parent, checkout / "data", ignore=lambda _, names: {*names} - {data.SHIPPED_FILE})
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=checkout, capture_output=True, text=True, timeout=600)
    assert done.stdout == f"{ascii(str(checkout / 'vae_tutorial' / 'data.py'))} {[400] * 10}\n", done.stderr
