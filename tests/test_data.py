"""Data sets and the loader, held against torchvision's Resize, the shipped bytes and faked folders; never downloads."""

import os
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.transforms.v2.functional import resize

from vae_tutorial import data
from vae_tutorial.data import DATASETS, Loader, load_images

REAL = os.environ.get("VAE_TUTORIAL_DATA", "")
RAW_FILES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
needs_real_mnist = pytest.mark.skipif(
    not os.path.isdir(os.path.join(REAL, "MNIST", "raw")), reason="VAE_TUTORIAL_DATA holds no MNIST/raw"
)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Keep every folder in tmp_path and every download a failure; return where data sets may lie, in their order."""
    named, checkout, cache = [tmp_path / name for name in ("named", "checkout", "cache")]
    monkeypatch.delenv("VAE_TUTORIAL_DATASET", raising=False)
    monkeypatch.setenv("VAE_TUTORIAL_DATA", str(named))
    monkeypatch.setattr(data, "_CHECKOUT", checkout)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: cache)
    fake_download(monkeypatch, RuntimeError("no network in tests"))
    return [named, checkout, cache]


@pytest.fixture(scope="module")
def digits():
    return load_images("mnist-5k")


@pytest.fixture(scope="module")
def shipped():
    with np.load(data._SHIPPED) as file:
        return torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])


def is_checkout(monkeypatch, folder):
    monkeypatch.setattr(data, "_SHIPPED", folder / data.SHIPPED_FILE)


def write_raw(folder, files=RAW_FILES):
    """Write zeros in torchvision's layout; the files are sparse, so that they cost nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in files.items():
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        (folder / name).write_bytes(header)
        os.truncate(folder / name, len(header) + np.prod(shape))


def fake_download(monkeypatch, error=None):
    def download(self):
        files = RAW_FILES if error is None else {"train-labels-idx1-ubyte": (60_000,)}
        write_raw(data.Path(self.raw_folder), files)
        if error:
            raise error

    monkeypatch.setattr(datasets.MNIST, "download", download)


def names_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


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


def test_the_shipped_file_is_the_one_of_the_checksum(tmp_path, monkeypatch):
    content = bytearray(data._SHIPPED.read_bytes())
    content[len(content) // 2] ^= 1
    is_checkout(monkeypatch, tmp_path)
    data._SHIPPED.write_bytes(content)
    refused(ValueError, data._SHIPPED, "missing or broken", "install vae_tutorial again")


def test_a_missing_shipped_file_is_named(tmp_path, monkeypatch):
    is_checkout(monkeypatch, tmp_path / "empty")
    refused(ValueError, data._SHIPPED, "missing or broken", "install vae_tutorial again")


@pytest.mark.parametrize("by_variable", [True, False])
def test_an_unknown_name_is_refused(by_variable, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_DATASET", "emnist" if by_variable else "mnist-5k")
    refused(ValueError, "'emnist'", "choose one of", *DATASETS, name=None if by_variable else "emnist")


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


@pytest.mark.parametrize("file", RAW_FILES)
@pytest.mark.parametrize("size", [None, 0, 10, 1000])
def test_a_truncated_or_missing_file_is_a_clear_error(file, size, folders):
    raw = folders[0] / "MNIST" / "raw"
    write_raw(raw)
    os.remove(raw / file) if size is None else os.truncate(raw / file, size)
    refused(ValueError, "mnist", f"{raw} is broken or incomplete", "delete", "mnist-5k", name="mnist")


def test_a_set_of_another_size_is_a_clear_error(folders):
    write_raw(folders[0] / "MNIST" / "raw", RAW_FILES | {"train-images-idx3-ubyte": (100, 28, 28)})
    refused(ValueError, "broken or incomplete", "(100, 28, 28)", name="mnist")


@pytest.mark.parametrize("error", [RuntimeError("no mirror\nanswered"), URLError("no mirror answered")])
def test_a_failed_download_offers_the_digits_that_ship(error, folders, monkeypatch):
    fake_download(monkeypatch, error)
    pieces = "mnist", folders[0], folders[2], "no mirror answered", "VAE_TUTORIAL_DATA to", "DATASET=mnist-5k"
    refused(FileNotFoundError, *pieces, name="mnist")


@pytest.mark.parametrize("error", [RuntimeError("no"), URLError("no"), KeyboardInterrupt()])
def test_a_failed_download_leaves_nothing_half_written(error, tmp_path, monkeypatch):
    fake_download(monkeypatch, error)
    with pytest.raises((FileNotFoundError, KeyboardInterrupt)):
        load_images("mnist")
    assert set(names_below(tmp_path)) <= {"named", "cache"}


@pytest.mark.parametrize(
    ("name", "layout", "writable"), [("mnist", "MNIST", 0), ("mnist", "MNIST", 2), ("fashion-mnist", "FashionMNIST", 0)]
)
def test_a_download_lands_in_the_first_writable_folder_alone(name, layout, writable, folders, tmp_path, monkeypatch):
    fake_download(monkeypatch)
    if writable:
        folders[0].write_text("a file, so that no folder can be made here")
    assert len(load_images(name).test_images) == 10_000
    home = folders[writable].name
    wanted = {home, f"{home}/{layout}", f"{home}/{layout}/raw", *[f"{home}/{layout}/raw/{file}" for file in RAW_FILES]}
    assert set(names_below(tmp_path)) == wanted | {"named"}


def numbered(count):
    """Return images that hold their own number everywhere, and that number as label."""
    numbers = torch.arange(count)
    return numbers[:, None, None, None].expand(-1, 1, 2, 2).float(), numbers


def orders(loader, passes=1):
    return [torch.cat([labels for _, labels in loader]).tolist() for _ in range(passes)]


@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 99])
def test_a_pass_gives_every_image_once_with_its_label(batch_size, seed):
    loader = Loader(*numbered(10), batch_size, seed)
    for _ in range(2):
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert sorted(labels.tolist()) == list(range(10))
        assert torch.equal(images, numbered(10)[0][labels])


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (32, [10])])
def test_only_the_last_batch_is_smaller_and_len_counts_it(batch_size, sizes):
    loader = Loader(*numbered(10), batch_size)
    assert [len(images) for images, _ in loader] == sizes
    assert len(loader) == len(sizes)


def test_every_pass_has_an_order_of_its_own():
    first, second, third = orders(Loader(*numbered(100)), passes=3)
    assert first != second != third != first


def test_the_same_seed_gives_the_same_orders_and_another_seed_others():
    first, again, other = [orders(Loader(*numbered(100), seed=seed), passes=2) for seed in (3, 3, 4)]
    assert first == again and first != other


def test_no_seed_keeps_the_order_as_it_is():
    assert orders(Loader(*numbered(10), 3, seed=None), passes=2) == [list(range(10))] * 2


def test_shuffling_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    list(Loader(*numbered(10)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_stay_on_the_device_of_the_images():
    images, labels = next(iter(Loader(*[part.cuda() for part in numbered(10)])))
    assert images.is_cuda and labels.is_cuda


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_1_is_refused(batch_size):
    with pytest.raises(ValueError, match=rf"^batch_size must be at least 1, but is {batch_size}\."):
        Loader(*numbered(10), batch_size)


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (10, 9), (9, 10)])
def test_no_images_or_another_number_of_labels_is_refused(images, labels):
    with pytest.raises(ValueError, match=rf"as many labels as images, at least one; got {images} and {labels}\."):
        Loader(numbered(images)[0], numbered(labels)[1])
