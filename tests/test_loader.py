"""The loader's batches and orders, held against numbered images, and its one guard."""

import pytest
import torch

from vae_tutorial.data import Loader


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


@pytest.mark.parametrize(("images", "labels"), [(10, 9), (9, 10), (0, 1)])
def test_another_number_of_labels_than_of_images_is_refused(images, labels):
    with pytest.raises(AssertionError, match=f"^{images} images, but {labels} labels"):
        Loader(numbered(images)[0], numbered(labels)[1])
