"""The loader's batches and orders, held against numbered images, and what it says to wrong arguments."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_tutorial.data import Loader


def numbered(count):
    """Return images that hold their own number everywhere, and that number as label."""
    numbers = torch.arange(count)
    return numbers[:, None, None, None].expand(-1, 1, 2, 2).float(), numbers


def orders(loader, passes=1):
    return [torch.cat([labels for _, labels in loader]).tolist() for _ in range(passes)]


@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 99, 2**80])
def test_a_pass_gives_every_image_once_with_its_label(batch_size, seed):
    loader = Loader(*numbered(10), batch_size, seed)
    for _ in range(2):
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert sorted(labels.tolist()) == list(range(10))
        assert torch.equal(images, numbered(10)[0][labels])


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (7, [7, 3]), (10, [10]), (32, [10])])
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


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "32", None, np.int64(3), torch.tensor(3), [3]])
def test_a_batch_size_that_is_no_whole_number_of_at_least_1_is_refused(batch_size):
    with pytest.raises(ValueError, match="^batch_size must be a whole number of at least 1, but is ") as error:
        Loader(*numbered(10), batch_size)
    assert str(error.value).endswith(f"{batch_size!r}.")


@pytest.mark.parametrize("seed", ["x", 1.0, True, -1, 2**63, torch.tensor(3)])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match="^seed must be None or a whole number from 0 to ") as error:
        Loader(*numbered(10), seed=seed)
    assert str(error.value).endswith(f"{seed!r}.")


@pytest.mark.parametrize("wrong", [None, [[0.0]], np.zeros((10, 1, 2, 2)), "mnist", 3])
def test_what_is_no_tensor_is_refused(wrong):
    images, labels = numbered(10)
    with pytest.raises(TypeError, match=f"^images must be a tensor, but is a {type(wrong).__name__}"):
        Loader(wrong, labels)
    with pytest.raises(TypeError, match=f"^labels must be a tensor, but is a {type(wrong).__name__}"):
        Loader(images, wrong)


@pytest.mark.parametrize(("images", "labels"), [((0, 1), (0,)), ((10, 1), (9,)), ((9, 1), (10,)), ((), ()), ((1,), ())])
def test_no_images_or_another_number_of_labels_is_refused(images, labels):
    with pytest.raises(ValueError, match="images and labels must be equally many, at least one") as error:
        Loader(torch.zeros(images), torch.zeros(labels))
    assert str(error.value).endswith(f"{images} and {labels}.")


def test_images_and_labels_on_two_devices_are_refused():
    with pytest.raises(ValueError, match="images are on cpu and labels on meta: move them to one device"):
        Loader(torch.zeros(3, 1), torch.zeros(3, device="meta"))


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=9), st.lists(st.integers())
)
tensors = st.lists(st.integers(0, 4), max_size=4).map(torch.zeros)


@given(
    st.integers(1, 9),
    st.dictionaries(st.sampled_from(["images", "labels", "batch_size", "seed"]), tensors | anything, max_size=2),
)
def test_a_loader_of_anything_gives_every_image_once_or_names_what_is_wrong(count, changes):
    images, labels = numbered(count)
    arguments = {"images": images, "labels": labels, "batch_size": 3} | changes
    try:
        loader = Loader(**arguments)
    except (TypeError, ValueError) as error:
        assert any(name in str(error) for name in changes)
        return
    batches, size = list(loader), arguments["batch_size"]
    assert len(batches) == len(loader)
    assert all(len(x) == len(y) == size for x, y in batches[:-1])
    assert sum(len(x) for x, _ in batches) == sum(len(y) for _, y in batches) == len(arguments["images"])
