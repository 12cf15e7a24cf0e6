"""Codes, class means, paths and samples from the prior, held against explicit loops and laws."""

import pytest
import torch
from torch import nn

from vae_tutorial.latent import class_means, encode_all, interpolate, sample_prior
from vae_tutorial.model import Decoder, Encoder

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(count):
    return torch.rand(count, 1, 32, 32) * 2 - 1


def buffers(module):
    return [buffer.clone() for buffer in module.buffers()]


def after_some_training(module, x):
    """Give BatchNorm running statistics away from where they start."""
    for _ in range(3):
        module(x)
    return module


class Echo(nn.Module):
    """A decoder that gives its code back, and keeps the mode it was called in."""

    def __init__(self, **kind):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, **kind))

    def forward(self, z):
        self.mode_seen = self.training
        return self.weight * z


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 500])
def test_codes_are_the_means_in_eval_mode_whatever_the_batch_size(batch_size, device):
    encoder, x = after_some_training(Encoder(1, 2, 3), images(5)).to(device), images(7)
    codes = encode_all(encoder, x, batch_size)
    torch.testing.assert_close(codes, encoder.eval()(x.to(device))[0].detach())
    assert codes.device.type == device and not codes.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_encoding_leaves_the_encoder_as_it_was(training):
    encoder = after_some_training(Encoder(1, 2, 3), images(5)).train(training)
    before = buffers(encoder)
    encode_all(encoder, images(4))
    assert [part.training for part in encoder.modules()] == [training] * len(list(encoder.modules()))
    assert all(torch.equal(*pair) for pair in zip(before, buffers(encoder), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_a_failed_encoding_restores_the_mode(training):
    encoder = Encoder(1, 2, 3).train(training)
    with pytest.raises(ValueError, match="must have shape"):
        encode_all(encoder, torch.zeros(2, 3, 32, 32))
    assert encoder.training == encoder.bn1.training == training


def loop_means(codes, labels, num_classes):
    means = torch.full((num_classes, codes.shape[1]), torch.nan, dtype=torch.float64)
    for label in range(num_classes):
        rows = [code.double() for code, own in zip(codes, labels.tolist(), strict=True) if own == label]
        if rows:
            means[label] = sum(rows) / len(rows)
    return means


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_means_are_those_of_a_loop_for_an_unbalanced_set_with_an_absent_class(dtype, device):
    labels = torch.tensor([0] * 1 + [1] * 50 + [2] * 7 + [9] * 13)[torch.randperm(71)]
    codes = torch.randn(71, 4, dtype=dtype) + labels[:, None]
    means = class_means(codes.to(device), labels.to(device))
    torch.testing.assert_close(means.cpu(), loop_means(codes, labels, 10).to(dtype), equal_nan=True)
    assert (means.device.type, means.dtype) == (device, dtype)


@pytest.mark.parametrize("num_classes", [3, 5])
def test_class_means_have_a_row_for_every_class(num_classes):
    codes, labels = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 0, 1])
    means = class_means(codes, labels, num_classes)
    torch.testing.assert_close(means, loop_means(codes, labels, num_classes).float(), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_be_any_whole_numbers(dtype):
    codes, labels = torch.randn(5, 3), torch.tensor([0, 1, 1, 9, 0])
    assert torch.equal(class_means(codes, labels.to(dtype)).nan_to_num(7), class_means(codes, labels).nan_to_num(7))


@pytest.mark.parametrize(("codes", "labels"), [((4, 3), (5,)), ((4, 3), (4, 1)), ((4,), (4,)), ((4, 3, 1), (4,))])
def test_codes_and_labels_of_other_shapes_are_refused(codes, labels):
    with pytest.raises(ValueError) as error:
        class_means(torch.zeros(codes), torch.zeros(labels, dtype=torch.long))
    for piece in ("codes must be (N, D)", "labels (N,)", f"are {codes} and {labels}"):
        assert piece in str(error.value)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError) as error:
        class_means(torch.zeros(2, 4), torch.tensor(labels), num_classes=3)
    for piece in ("labels must", "0 to 2", f"{labels[0]} to {labels[1]}"):
        assert piece in str(error.value)


@pytest.mark.parametrize("num_steps", [2, 3, 10, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_path_hits_both_ends_exactly(num_steps, dtype):
    start, end = 1e3 * torch.randn(2, 33, dtype=dtype)
    path = interpolate(start, end, num_steps)
    assert torch.equal(path[0], start) and torch.equal(path[-1], end)
    assert (path.shape, path.dtype) == ((num_steps, 33), dtype)


def test_a_path_is_the_one_of_a_loop():
    start, end = torch.randn(2, 5, dtype=torch.float64)
    steps = [start + step / 6 * (end - start) for step in range(7)]
    torch.testing.assert_close(interpolate(start, end, 7), torch.stack(steps))


def test_a_path_backwards_is_the_path_reversed():
    start, end = torch.randn(2, 5)
    torch.testing.assert_close(interpolate(end, start, 9), interpolate(start, end, 9).flip(0))


@pytest.mark.parametrize("device", ["meta", *DEVICES])
def test_a_path_stays_on_its_device(device):
    assert interpolate(*torch.zeros(2, 3, device=device), 4).device.type == device


@pytest.mark.parametrize(("start", "end"), [((3,), (4,)), ((3,), (1,)), ((1, 3), (1, 3)), ((), ())])
def test_ends_of_other_shapes_are_refused(start, end):
    with pytest.raises(ValueError) as error:
        interpolate(torch.zeros(start), torch.zeros(end), 5)
    for piece in ("start and end must be (D,)", f"are {start} of torch.float32 and {end} of"):
        assert piece in str(error.value)


@pytest.mark.parametrize("num_steps", [1, 0, -2])
def test_a_path_too_short_for_both_ends_is_refused(num_steps):
    with pytest.raises(ValueError, match=rf"^num_steps must be a whole number from 2 to \d+, but is {num_steps}\."):
        interpolate(torch.zeros(3), torch.zeros(3), num_steps)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_decoder_as_it_was(training):
    decoder = after_some_training(Decoder(1, 2, 3), torch.randn(5, 3)).train(training)
    before = buffers(decoder)
    sample_prior(decoder, 4, 3)
    assert [part.training for part in decoder.modules()] == [training] * len(list(decoder.modules()))
    assert all(torch.equal(*pair) for pair in zip(before, buffers(decoder), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_a_failed_sampling_restores_the_mode(training):
    decoder = Decoder(1, 2, 3).train(training)
    with pytest.raises(ValueError, match="z must have shape"):
        sample_prior(decoder, 4, 5)
    assert decoder.training == decoder.bn1.training == training


def test_sampling_decodes_in_eval_mode_without_gradients():
    decoder = Echo()
    assert not sample_prior(decoder, 4, 3).requires_grad
    assert (decoder.mode_seen, decoder.training) == (False, True)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("num_samples", [1, 4])
def test_samples_are_images_between_minus_1_and_1(num_samples):
    samples = sample_prior(Decoder(3, 2, 7), num_samples, 7)
    assert samples.shape == (num_samples, 3, 32, 32)
    assert -1 <= samples.min() < samples.max() <= 1


def test_codes_are_drawn_from_the_standard_normal_distribution():
    z = sample_prior(Echo(dtype=torch.float64), 20_000, 3)
    # five standard errors of a mean and of a (co)variance
    assert (z.mean(dim=0).abs() < 5 / len(z) ** 0.5).all()
    assert ((z.T.cov() - torch.eye(3)).abs() < 5 * (2 / len(z)) ** 0.5).all()


def test_samples_differ_from_each_other_and_from_call_to_call():
    decoder = Decoder(1, 2, 3)
    assert len(torch.cat([sample_prior(decoder, 5, 3) for _ in range(2)]).unique(dim=0)) == 10


@pytest.mark.parametrize("device", ["meta", *DEVICES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_device_and_dtype_of_the_decoder(device, dtype):
    samples = sample_prior(Decoder(1, 2, 3).to(device, dtype), 2, 3)
    assert (samples.device.type, samples.dtype) == (device, dtype)
