"""What makes training faster changes no result; tests/benchmarks shows that it is faster."""

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from vae_tutorial import speed
from vae_tutorial.model import VAE, Decoder, Encoder

COVERED = [  # a layer, and a size of input with which it is a matrix product
    (nn.Conv2d(3, 5, 4), (2, 3, 4, 4)),
    (nn.Conv2d(3, 5, (4, 2), stride=3, bias=False), (2, 3, 4, 2)),
    (nn.ConvTranspose2d(3, 5, 4), (2, 3, 1, 1)),
    (nn.ConvTranspose2d(3, 5, (4, 2), stride=2, bias=False), (1, 3, 1, 1)),
]
OTHERS = [
    (nn.Conv2d(3, 5, 4), (2, 3, 6, 6)),
    (nn.Conv2d(3, 5, 4), (3, 4, 4)),
    (nn.Conv2d(2, 4, 4, groups=2), (2, 2, 4, 4)),
    (nn.Conv2d(2, 4, 3, groups=2), (2, 2, 3, 3)),
    (nn.Conv2d(3, 5, 4, padding=1), (2, 3, 4, 4)),
    (nn.Conv2d(3, 5, 3, padding="same"), (2, 3, 3, 3)),
    (nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), (2, 3, 3, 3)),
    (nn.ConvTranspose2d(3, 5, 4), (2, 3, 2, 2)),
    (nn.ConvTranspose2d(3, 5, 4), (3, 1, 1)),
    (nn.ConvTranspose2d(4, 6, 4, groups=2), (2, 4, 1, 1)),
    (nn.ConvTranspose2d(3, 5, 4, padding=1), (2, 3, 1, 1)),
    (nn.ConvTranspose2d(3, 5, 4, stride=2, output_padding=1), (2, 3, 1, 1)),
    (nn.ConvTranspose2d(3, 5, 4, dilation=2), (2, 3, 1, 1)),
]


def run(layer, shape):
    """Return a layer's output on a fixed input, and the gradients of a weighted sum of it."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("layer", "shape"), COVERED + OTHERS, ids=str)
def test_a_convolution_gives_the_same_output_and_gradients(layer, shape, order):
    layer = layer.to(torch.float64, memory_format=order)
    wanted = run(layer, shape)
    with speed.quick_convolutions(layer):
        got = run(layer, shape)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("layer", "shape"), COVERED, ids=str)
def test_it_is_a_matrix_product_inside_and_a_convolution_again_outside(layer, shape):
    with speed.quick_convolutions(layer):
        inside = functions(layer, shape)
    assert "convolution" not in inside
    assert "convolution" in functions(layer, shape)


def functions(layer, shape):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer.float()(torch.zeros(shape))
    return " ".join(event.key for event in profile.key_averages())


def test_a_layer_is_left_as_it_was_whatever_happens():
    layer = nn.Conv2d(3, 5, 4)
    before = vars(layer).copy()
    with pytest.raises(KeyboardInterrupt), speed.quick_convolutions(layer):
        assert vars(layer) != before
        raise KeyboardInterrupt
    assert vars(layer) == before


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def doubled_by_hand():
    layer = nn.Conv2d(3, 5, 4)
    layer.forward = lambda x: 2 * nn.Conv2d.forward(layer, x)
    return layer


@pytest.mark.parametrize("layer", [Doubled(3, 5, 4), doubled_by_hand(), nn.Conv2d(3, 5, 4, device="meta")], ids=str)
def test_another_kind_of_layer_and_another_device_are_not_touched(layer):
    before = vars(layer).copy()
    with speed.quick_convolutions(layer):
        assert vars(layer) == before
    assert vars(layer) == before


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 5, 4), (2, 3, 4, 4)),
        (nn.Conv2d(2, 4, 4, groups=2), (2, 1, 4, 4)),
        (nn.Conv2d(3, 5, 4, dilation=2), (2, 3, 4, 4)),
        (nn.ConvTranspose2d(3, 5, 4), (2, 5, 1, 1)),
        (nn.ConvTranspose2d(3, 5, 4), (2, 1, 1)),
    ],
    ids=str,
)
def test_an_input_that_does_not_fit_gives_the_error_of_torch(layer, shape):
    with pytest.raises(RuntimeError) as wanted:
        layer(torch.zeros(shape))
    with speed.quick_convolutions(layer), pytest.raises(RuntimeError) as error:
        layer(torch.zeros(shape))
    assert str(error.value) == str(wanted.value)


def test_the_order_in_memory_changes_no_weight_and_no_result():
    torch.manual_seed(0)
    model, x = VAE(Encoder(1, 4, 6), Decoder(1, 4, 6)).eval(), torch.rand(5, 1, 32, 32) * 2 - 1
    before, wanted = [value.clone() for value in model.state_dict().values()], model(x)
    speed.prepare(model)
    assert model.encoder.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    for value, was in zip(model.state_dict().values(), before, strict=True):
        assert torch.equal(value, was)
    for got, want in zip(model(x), wanted, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_in_the_middle_of_its_run_goes_on_as_if_nothing_had_changed(fused):
    def train(prepared):
        torch.manual_seed(0)
        last = nn.Conv3d(3, 2, (1, 2, 2))
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3), nn.Unflatten(1, (3, 1)), last)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=fused)
        for step in range(6):
            if prepared and step == 3:
                speed.prepare(model, optimizer)
            model(torch.rand(5, 2, 8, 8)).pow(2).sum().backward()
            optimizer.step()
        return [weight.detach() for weight in model.parameters()]

    for got, want in zip(train(True), train(False), strict=True):
        torch.testing.assert_close(got, want)


FAULTS = """
import resource, sys, torch
from vae_tutorial import speed
model = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), *[torch.nn.Sigmoid() for _ in range(4)])
if sys.argv[1] == "prepared":
    speed.prepare(model)
x = torch.rand(96, 1, 32, 32)
for step in range(30):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(x).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept in glibc's way")
def test_memory_is_kept_from_step_to_step():
    def faults(how):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return float(done.stdout)

    # where the system puts the heap is chance, and changes the number several times over
    assert 4 * min(faults("prepared") for _ in range(3)) < max(faults("as it is") for _ in range(3))
