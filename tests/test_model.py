"""The networks and what joins them, held against plain stacks of layers, a normal distribution and laws."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal

from vae_tutorial.loss import kl_divergence
from vae_tutorial.model import (
    VAE,
    Autoencoder,
    Decoder,
    Encoder,
    build_cvae,
    eval_mode,
    join_labels,
    reparameterize,
)

DEVICES = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
SIZES = [(1, 16, 32), (3, 5, 7), (1, 1, 1)]  # channels, width, latent_dim
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def within(dtype):
    """Return tolerances of a few roundings of a dtype."""
    return dict.fromkeys(["rtol", "atol"], 50 * torch.finfo(dtype).eps)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(channels=1, width=3, latent_dim=5):
    return VAE(Encoder(channels, width, latent_dim), Decoder(channels, width, latent_dim))


def images(count, channels=1):
    return torch.rand(count, channels, 32, 32) * 2 - 1


def shake(module):
    """Move BatchNorm away from where it starts: there it hardly changes anything."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.uniform_(0.5, 1.5)
    return module


def stack(convolutions):
    return nn.Sequential(
        *[part for conv in convolutions for part in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())]
    )


def encoder_stack(channels, width):
    sizes = [channels, width, 2 * width, 4 * width]
    return stack([nn.Conv2d(n, m, 4, 2, 1) for n, m in zip(sizes[:-1], sizes[1:], strict=True)])


def decoder_stack(channels, width, latent_dim):
    first = nn.ConvTranspose2d(latent_dim, 4 * width, 4)
    others = [nn.ConvTranspose2d(2 * n * width, n * width, 4, 2, 1) for n in (2, 1)]
    return nn.Sequential(*stack([first, *others]), nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())


def copy_weights(layers, plain):
    weighted = [layer for layer in plain if list(layer.parameters())]
    for layer, twin in zip(layers, weighted, strict=True):
        twin.load_state_dict(layer.state_dict())


def count_weights(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_encoder_is_a_stack_of_layers_with_two_linear_heads(sizes, training):
    channels, width, latent_dim = sizes
    encoder, x = shake(Encoder(*sizes)).train(training), images(4, channels)
    plain = encoder_stack(channels, width).train(training)
    *layers, head_mu, head_logvar = encoder.children()
    copy_weights(layers, plain)
    features = plain(x).flatten(1)
    for output, head in zip(encoder(x), (head_mu, head_logvar), strict=True):
        torch.testing.assert_close(output, F.linear(features, head.weight.flatten(1), head.bias))
        assert output.shape == (4, latent_dim)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_decoder_is_a_stack_of_layers_that_ends_in_tanh(sizes, training):
    decoder, plain = shake(Decoder(*sizes)).train(training), decoder_stack(*sizes).train(training)
    z = torch.randn(4, sizes[2])
    copy_weights(decoder.children(), plain)
    torch.testing.assert_close(decoder(z), plain(z[..., None, None]))


@pytest.mark.parametrize(("channels", "width", "latent_dim"), SIZES)
def test_no_weights_beside_those_of_the_named_layers(channels, width, latent_dim):
    heads = [nn.Linear(4 * width * 4 * 4, latent_dim) for _ in range(2)]
    plain = decoder_stack(channels, width, latent_dim)
    assert count_weights(Encoder(channels, width, latent_dim)) == count_weights(encoder_stack(channels, width), *heads)
    assert count_weights(Decoder(channels, width, latent_dim)) == count_weights(plain)


@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_sizes_left_out_are_1_channel_width_16_and_32_dimensions(part):
    shapes = [[weight.shape for weight in module.parameters()] for module in (part(), part(1, 16, 32))]
    assert shapes[0] == shapes[1]


def maps_of(model, x):
    """Return the shape that every convolution gives, by its name."""
    shapes = {}
    for name, layer in model.named_modules():
        if "conv" in name:
            layer.register_forward_hook(lambda *args, name=name: shapes.update({name: tuple(args[2].shape[1:])}))
    model(x)
    return shapes


@pytest.mark.parametrize(("channels", "width", "latent_dim"), SIZES)
def test_every_convolution_gives_the_map_its_comment_says(channels, width, latent_dim):
    down = [(width, 16, 16), (2 * width, 8, 8), (4 * width, 4, 4), (latent_dim, 1, 1), (latent_dim, 1, 1)]
    up = [(4 * width, 4, 4), (2 * width, 8, 8), (width, 16, 16), (channels, 32, 32)]
    assert list(maps_of(build(channels, width, latent_dim), images(2, channels)).values()) == down + up


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_shapes_and_device_follow_the_input(device, training, count):
    model, x = build(channels=3).to(device).train(training), images(count, 3).to(device)
    recon, mu, logvar = model(x)
    assert (recon.shape, mu.shape, logvar.shape) == (x.shape, (count, 5), (count, 5))
    assert {part.device.type for part in (recon, mu, logvar)} == {device}


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one_gives_numbers(training):
    assert all(part.isfinite().all() for part in build().train(training)(images(1)))


@pytest.mark.parametrize("training", [True, False])
def test_float64_stays_float64(training):
    parts = build().double().train(training)(images(2).double())
    assert [part.dtype for part in parts] == [torch.float64] * 3


def test_images_lie_between_minus_1_and_1_and_come_near_both():
    recon = build().decoder(100 * torch.randn(50, 5))
    assert -1 <= recon.min() < -0.5 and 0.5 < recon.max() <= 1


def test_eval_is_deterministic():
    model, x = shake(build()).eval(), images(3)
    for first, second in zip(model(x), model(x), strict=True):
        assert torch.equal(first, second)


def test_eval_decodes_mu():
    model = shake(build()).eval()
    recon, mu, _ = model(images(3))
    assert torch.equal(recon, model.decoder(mu))


def test_eval_takes_no_notice_of_the_other_images_of_a_batch():
    model, x = shake(build()).eval(), images(3)
    for together, alone in zip(model(x), model(x[:1]), strict=True):
        torch.testing.assert_close(together[:1], alone)


def test_train_samples_anew_every_time():
    model, x = build(), images(3)
    (recon, mu, logvar), (other_recon, other_mu, other_logvar) = model(x), model(x)
    assert torch.equal(mu, other_mu) and torch.equal(logvar, other_logvar)
    assert not torch.isclose(recon, other_recon).all(dim=(1, 2, 3)).any()


def test_train_decodes_what_reparameterize_draws():
    model, x = build(), images(3)
    torch.manual_seed(1)
    recon, mu, logvar = model(x)
    torch.manual_seed(1)
    assert torch.equal(recon, model.decoder(reparameterize(mu, logvar)))


def test_vae_takes_any_encoder_and_decoder():
    model = VAE(lambda x: (x.mean((2, 3)), torch.zeros(len(x), 1)), lambda z: 2 * z).eval()
    recon, mu, logvar = model(torch.ones(2, 1, 4, 4))
    assert (recon.tolist(), mu.tolist(), logvar.tolist()) == ([[2.0]] * 2, [[1.0]] * 2, [[0.0]] * 2)


@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_reaches_every_parameter(training):
    # BatchNorm takes out the bias of the layer before it while it averages over the batch, so it stays in eval mode
    model, x = shake(build()).eval(), images(4)
    model.training = training
    recon, mu, logvar = model(x)
    ((recon - x).pow(2).sum() + kl_divergence(mu, logvar).sum()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_a_gradient_reaches_logvar_through_the_sample_alone():
    model = build()
    model(images(4))[0].pow(2).sum().backward()
    assert model.encoder.conv_logvar.weight.grad.any()


def test_samples_follow_the_normal_distribution_of_mu_and_logvar():
    mu, logvar = torch.tensor([-1.5, 0.3, 2.0]), torch.tensor([-2.0, 0.5, 1.4])
    z = reparameterize(mu.expand(20_000, 3), logvar.expand(20_000, 3))
    # a number's place in its own distribution is uniform: the Kolmogorov-Smirnov distance, at one in 10,000
    places = Normal(mu, (0.5 * logvar).exp()).cdf(z).sort(dim=0).values
    distance = (places - torch.linspace(0, 1, len(z))[:, None]).abs().amax(dim=0)
    assert (distance < 2.23 / len(z) ** 0.5).all()


def test_every_entry_has_noise_of_its_own():
    assert reparameterize(torch.zeros(8, 9), torch.zeros(8, 9)).unique().numel() == 8 * 9


def test_without_variance_the_sample_is_mu():
    mu = torch.randn(4, 3)
    assert torch.equal(reparameterize(mu, torch.full_like(mu, -torch.inf)), mu)


def test_the_global_seed_fixes_the_sample():
    samples = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        samples.append(reparameterize(torch.zeros(2, 3), torch.ones(2, 3)))
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[1], samples[2])


def test_the_gradient_of_the_sample_is_1_for_mu_and_half_the_deviation_for_logvar():
    mu, logvar = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    z = reparameterize(mu, logvar)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones(4, 3))
    torch.testing.assert_close(logvar.grad, (z - mu).detach() / 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sample_has_the_device_and_dtype_of_mu(device, dtype):
    z = reparameterize(*torch.zeros(2, 4, 3, device=device, dtype=dtype))
    assert (z.device.type, z.dtype, z.shape) == (device, dtype, (4, 3))


@given(st.sampled_from(FLOATS), st.sampled_from(["", "encoder", "decoder"]), st.integers(0, 3), st.integers(0, 99))
def test_every_dtype_gives_the_numbers_of_doubles_within_its_rounding(dtype, part, count, seed):
    torch.manual_seed(seed)
    network = build().eval().get_submodule(part).to(dtype)
    given = torch.randn(count, *([5] if part == "decoder" else [1, 32, 32])).to(dtype)
    outputs, wanted = network(given), copy.deepcopy(network).double()(given.double())
    for output, want in zip(outputs, wanted, strict=True):
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), want, **within(dtype))


@given(st.sampled_from(FLOATS), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_the_sample_is_mu_plus_noise_times_the_deviation(dtype, count, latent_dim, seed):
    torch.manual_seed(seed)
    mu, logvar = torch.randn(2, count, latent_dim).to(dtype)
    state = torch.get_rng_state()
    z = reparameterize(mu, logvar)
    torch.set_rng_state(state)
    noise = torch.randn_like(mu).double()
    torch.testing.assert_close(z.double(), mu.double() + noise * logvar.double().exp().sqrt(), **within(dtype))


@pytest.mark.parametrize("shape", [(4, 1), (1, 3), (3,), (3, 4)])
def test_logvar_of_another_shape_than_mu_is_refused(shape):
    with pytest.raises(AssertionError) as error:
        reparameterize(torch.zeros(4, 3), torch.zeros(shape))
    assert str(error.value).startswith(f"mu is (4, 3), but logvar is {shape}")


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 1, 32, 31), (2, 1, 64, 64)])
def test_images_that_are_not_32x32_are_refused(shape):
    with pytest.raises(AssertionError) as error:
        Encoder(1, 2, 3)(torch.zeros(shape))
    assert str(error.value).startswith(f"x must be (B, C, 32, 32), but is {shape}")


# Autoencoder


@pytest.mark.parametrize("training", [True, False])
def test_an_autoencoder_decodes_mu_in_both_modes(training):
    model, x = Autoencoder(Encoder(1, 3, 5), Decoder(1, 3, 5)).train(training), images(3)
    recon, mu, logvar = model(x)
    for got, want in zip((recon, mu, logvar), (model.decoder(mu), *model.encoder(x)), strict=True):
        assert torch.equal(got, want)


def test_an_autoencoder_gives_logvar_no_gradient_through_its_images():
    model = Autoencoder(Encoder(1, 3, 5), Decoder(1, 3, 5))
    model(images(4))[0].pow(2).sum().backward()
    assert model.encoder.conv_mu.weight.grad.any() and model.encoder.conv_logvar.weight.grad is None


# labels


@pytest.mark.parametrize("num_classes", [3, 10])
@pytest.mark.parametrize("dtype", FLOATS)
def test_join_labels_appends_the_planes_of_a_loop(num_classes, dtype):
    x, labels = images(4).to(dtype), torch.tensor([2, 0, 1, 2])
    joined = join_labels(x, labels, num_classes)
    assert (joined.shape, joined.dtype) == ((4, 1 + num_classes, 32, 32), dtype)
    assert torch.equal(joined[:, :1], x)
    for planes, label in zip(joined[:, 1:], labels.tolist(), strict=True):
        for number, plane in enumerate(planes):
            assert (plane == float(number == label)).all()


@pytest.mark.parametrize("training", [True, False])
def test_a_conditional_vae_decodes_the_code_beside_its_label(training):
    model, labels = shake(build_cvae(3, 5)).train(training), torch.tensor([7, 0, 9])
    x = join_labels(images(3), labels)
    torch.manual_seed(1)
    recon, mu, logvar = model(x)
    torch.manual_seed(1)
    z = reparameterize(mu, logvar) if training else mu
    wanted = model.decoder(torch.cat([z, torch.eye(10)[labels]], dim=1))
    assert torch.equal(recon, wanted)
    assert torch.equal(recon, model.decode(z, torch.eye(10)[labels]))
    assert all(map(torch.equal, (mu, logvar), model.encoder(x)))


def test_the_label_changes_what_a_conditional_vae_decodes():
    model, z = shake(build_cvae(3, 5)).eval(), torch.randn(1, 5).expand(10, 5)
    assert len(model.decode(z, torch.eye(10)).unique(dim=0)) == 10


@pytest.mark.parametrize(("width", "latent_dim", "num_classes"), [(2, 3, 10), (5, 7, 4)])
def test_build_cvae_builds_networks_with_room_for_the_label(width, latent_dim, num_classes):
    model = build_cvae(width, latent_dim, num_classes)
    twins = Encoder(1 + num_classes, width, latent_dim), Decoder(1, width, latent_dim + num_classes)
    for part, twin in zip((model.encoder, model.decoder), twins, strict=True):
        assert [weight.shape for weight in part.parameters()] == [weight.shape for weight in twin.parameters()]
    recon, mu, logvar = model(torch.zeros(2, 1 + num_classes, 32, 32))
    assert (recon.shape, mu.shape, logvar.shape) == ((2, 1, 32, 32), (2, latent_dim), (2, latent_dim))


# eval_mode


def mixed():
    """Return a model whose parts are in different modes."""
    model = build()
    model.encoder.eval()
    model.encoder.bn2.train()
    model.decoder.bn1.eval()
    return model


@pytest.mark.parametrize("make", [mixed, build, lambda: build().eval()])
@pytest.mark.parametrize("fails", [False, True])
def test_eval_mode_gives_each_part_its_own_mode_back(make, fails):
    model = make()
    modes = {name: part.training for name, part in model.named_modules()}
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext(), eval_mode(model):
        assert not any(part.training for part in model.modules())
        if fails:
            raise KeyboardInterrupt
    assert {name: part.training for name, part in model.named_modules()} == modes


def test_eval_mode_inside_eval_mode_changes_nothing():
    model = build()
    with eval_mode(model):
        with eval_mode(model.encoder):
            pass
        assert not any(part.training for part in model.modules())
    assert all(part.training for part in model.modules())
