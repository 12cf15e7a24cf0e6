"""Steps, epochs, whole runs and their evaluation, held against explicit computations and laws."""

import copy
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from vae_tutorial import speed
from vae_tutorial.data import Loader, load_images
from vae_tutorial.loss import elbo_loss, vae_loss
from vae_tutorial.model import VAE, Decoder, Encoder, reparameterize
from vae_tutorial.train import evaluate, fit, one_cycle_rate, train_epoch, train_step

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SEEDS, LOSSES = st.integers(0, 99), st.sampled_from([vae_loss, elbo_loss])


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    monkeypatch.delenv("VAE_TUTORIAL_EPOCHS", raising=False)
    torch.manual_seed(0)


def build(width=2, latent_dim=3, seed=0):
    torch.manual_seed(seed)
    return VAE(Encoder(1, width, latent_dim), Decoder(1, width, latent_dim))


def images(count, seed=0):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def load(count=10, batch_size=4):
    return Loader(images(count), torch.zeros(count), batch_size)


def optimize(model, lr=1e-2):
    return torch.optim.Adam(model.parameters(), lr=lr)


def run(model, test_images=None, optimizer=None, epochs=2, loader=None, **settings):
    test_images = images(3, seed=1) if test_images is None else test_images
    optimizer = optimizer or optimize(model)
    try:
        return fit(model, loader or load(), test_images, optimizer=optimizer, epochs=epochs, **settings)
    except KeyboardInterrupt:  # it would end pytest itself
        pytest.fail("fit let Ctrl-C through")


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()]).clone()


def everything(model):
    """Return weights and BatchNorm's buffers in one row."""
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


def modes(model):
    return [part.training for part in model.modules()]


def stopping(calls, error):
    """Return a function that raises the error at its last call of so many."""
    rest = iter(range(calls - 1))

    def count():
        if next(rest, None) is None:
            raise error

    return count


# train_step


def test_a_step_goes_down_the_gradient():
    model, x = build(), images(4)
    twin, state = copy.deepcopy(model), torch.get_rng_state()
    train_step(model, x, torch.optim.SGD(model.parameters(), lr=0.5), vae_loss)
    torch.set_rng_state(state)
    recon, mu, logvar = twin(x)
    gradients = torch.autograd.grad(vae_loss(recon, x, mu, logvar)[0], list(twin.parameters()))
    torch.testing.assert_close(weights(model), weights(twin) - 0.5 * torch.cat([g.flatten() for g in gradients]))


def test_a_step_returns_the_parts_before_the_change_as_floats():
    model, x = build(), images(4)
    twin, state = copy.deepcopy(model), torch.get_rng_state()
    parts = train_step(model, x, optimize(model), elbo_loss)
    torch.set_rng_state(state)
    recon, mu, logvar = twin(x)
    assert parts == tuple(part.item() for part in elbo_loss(recon, x, mu, logvar))
    assert [type(part) for part in parts] == [float] * 3


def test_a_step_forgets_the_gradients_of_the_one_before():
    model, x = build(), images(4)
    twin, state = copy.deepcopy(model), torch.get_rng_state()
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    for each in (model, twin):
        torch.set_rng_state(state)
        train_step(each, x, torch.optim.SGD(each.parameters(), lr=0.5), vae_loss)
    assert torch.equal(weights(model), weights(twin))


# train_epoch


def test_an_epoch_steps_once_a_batch_in_train_mode_and_calls_after_each():
    model, log = build().eval(), []

    def step(model, x, optimizer, loss_fn):
        log.append((len(x), all(modes(model)), loss_fn))
        return 0.0, 0.0, 0.0

    train_epoch(model, load(10, 4), optimize(model), elbo_loss, step, lambda: log.append("after"))
    assert log == [(4, True, elbo_loss), "after", (4, True, elbo_loss), "after", (2, True, elbo_loss), "after"]


def test_the_means_of_an_epoch_are_over_images_not_batches():
    model, parts = build(), iter([(1.0, 2.0, 3.0), (2.0, 4.0, 6.0), (9.0, 18.0, 27.0)])
    means = train_epoch(model, load(10, 4), optimize(model), train_step=lambda *args: next(parts))
    assert means == pytest.approx([(4 * 1 + 4 * 2 + 2 * 9) / 10 * factor for factor in (1, 2, 3)])


LOADERS = [
    lambda x, size: Loader(x, torch.zeros(len(x)), size, seed=None),
    lambda x, size: DataLoader(TensorDataset(x, torch.zeros(len(x))), size),
    lambda x, size: [(batch, None) for batch in x.split(size)],
]


def uneven(count, seed):
    """Return images with a slope: without it, BatchNorm would magnify the rounding."""
    return images(count, seed) + torch.linspace(-1, 1, 32)


@given(SEEDS, st.integers(1, 4), st.integers(1, 3), st.sampled_from(LOADERS), LOSSES, st.booleans())
def test_an_epoch_is_its_steps_of_gradient_descent(seed, count, batch_size, make, loss_fn, training):
    model, x, rows, calls = build(seed=seed).train(training), uneven(count, seed), [], []
    twin = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    torch.manual_seed(0)
    means = train_epoch(model, make(x, batch_size), optimizer, loss_fn, after_step=lambda: calls.append(1))
    torch.manual_seed(0)
    for batch, _ in make(x, batch_size):
        recon, mu, logvar = twin(batch)
        parts = loss_fn(recon, batch, mu, logvar)
        gradients = torch.autograd.grad(parts[0], list(twin.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(twin.parameters(), gradients, strict=True):
                weight.add_(gradient, alpha=-1e-3)
        rows += [[part.item() for part in parts]] * len(batch)
    assert means == pytest.approx(np.mean(rows, axis=0), rel=1e-5, abs=1e-5)
    torch.testing.assert_close(model.state_dict(), twin.state_dict())
    assert all(modes(model)) and len(calls) == math.ceil(count / batch_size)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_epoch(loss):
    model = build()
    with pytest.raises(FloatingPointError) as error:
        train_epoch(model, load(), optimize(model, lr=0.25), train_step=lambda *args: (loss, 0.0, 0.0))
    for piece in (f"The loss is {loss}", "anew", "with a lower learning rate", "[-1, 1]"):
        assert piece in str(error.value)


# evaluate


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss_fn", [vae_loss, elbo_loss])
@pytest.mark.parametrize("batch_size", [3, 7, 500])
def test_evaluation_is_the_mean_over_images_of_sampled_codes_in_eval_mode(loss_fn, batch_size, device):
    model, x = build().to(device), images(7).to(device)
    model(x)
    result = evaluate(model, x.cpu(), loss_fn, seed=5, batch_size=batch_size)
    model.eval()
    torch.manual_seed(5)
    sums = torch.zeros(3, dtype=torch.float64)
    for part in x.split(batch_size):
        mu, logvar = model.encoder(part)
        recon = model.decoder(reparameterize(mu, logvar))
        sums += torch.tensor([len(part) * value.item() for value in loss_fn(recon, part, mu, logvar)])
    assert result == pytest.approx((sums / len(x)).tolist())


def test_evaluation_is_deterministic_whatever_was_drawn_before():
    model = build()
    first = evaluate(model, images(7))
    torch.randn(3)
    assert evaluate(model, images(7)) == first
    assert [type(part) for part in first] == [float] * 3


def test_evaluation_samples_the_code():
    model = build()
    with torch.no_grad():
        recon, mu, logvar = model.eval()(images(7))
    losses = {evaluate(model, images(7), seed=seed)[0] for seed in range(3)}
    assert len({*losses, vae_loss(recon, images(7), mu, logvar)[0].item()}) == 4


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_does_not_depend_on_the_mode_and_leaves_the_model_as_it_was(training):
    model = build()
    wanted = evaluate(model.eval(), images(7))
    before = everything(model.train(training))
    assert evaluate(model, images(7)) == wanted
    assert modes(model) == [training] * len(modes(model))
    assert torch.equal(everything(model), before)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_leaves_the_global_generators_alone(fails, device):
    def loss_fn(*args):
        return vae_loss(*args) if not fails else 1 / 0

    model, generators = build().to(device), [torch, *([torch.cuda] if device == "cuda" else [])]
    states = [generator.get_rng_state() for generator in generators]
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        evaluate(model, images(7), loss_fn)
    assert all(torch.equal(g.get_rng_state(), state) for g, state in zip(generators, states, strict=True))


def test_evaluation_leaves_the_generators_of_other_devices_alone(monkeypatch):
    model = build()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    evaluate(model, images(7))


@pytest.mark.parametrize("training", [True, False])
def test_a_failed_evaluation_restores_the_mode(training):
    model = build().train(training)
    with pytest.raises(AssertionError, match="x must be"):
        evaluate(model, torch.zeros(2, 1, 28, 28))
    assert modes(model) == [training] * len(modes(model))


def test_evaluation_keeps_no_gradients():
    kept = []
    evaluate(build(), images(3), lambda *parts: kept.append(parts) or vae_loss(*parts))
    assert [part.requires_grad for part in kept[0]] == [False] * 4


class Around(nn.Module):
    """A module that has a VAE as a part, and calls it."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, x):
        return self.vae(x)


@pytest.mark.parametrize("around", [Around, nn.Sequential, lambda vae: Around(nn.Sequential(vae))])
@pytest.mark.parametrize("training", [True, False])
def test_evaluation_samples_the_code_of_a_vae_inside_another_module(around, training):
    assert evaluate(around(build()).train(training), images(7)) == evaluate(build(), images(7))


class OwnDropout(nn.Dropout):
    """A layer of one's own, derived from one of PyTorch's."""


def with_dropout(layer=nn.Dropout):
    """Return a model with layers that behave otherwise in train mode, their parts in different modes."""
    vae = build()
    vae.encoder = nn.Sequential(layer(0.5), vae.encoder)
    vae.encoder.eval()
    vae.decoder.bn2.eval()
    return vae


@pytest.mark.parametrize("layer", [nn.Dropout, OwnDropout])
def test_evaluation_keeps_dropout_and_batchnorm_in_eval_mode(layer):
    seen, model = [], with_dropout(layer)

    def loss_fn(*parts):
        seen.extend(part.training for part in model.modules() if isinstance(part, nn.Dropout | nn.BatchNorm2d))
        return vae_loss(*parts)

    assert evaluate(model.train(), images(7), loss_fn) == evaluate(build(), images(7))
    assert seen == [False] * 7


@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_gives_each_part_its_own_mode_back(fails):
    model = with_dropout()
    before = modes(model)
    assert len(set(before)) == 2
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        evaluate(model, images(7), lambda *parts: 1 / 0 if fails else vae_loss(*parts))
    assert modes(model) == before


@given(SEEDS, SEEDS, st.integers(1, 4), st.integers(1, 4), st.booleans(), LOSSES)
def test_evaluation_is_that_of_a_loop_over_doubles(noise, seed, count, batch_size, training, loss_fn):
    model, x = build(seed=seed).train(training), images(count, seed)
    parts = evaluate(model, x, loss_fn, noise, batch_size)
    network, rows = model.double().eval(), []
    torch.manual_seed(noise)
    for batch in x.double().split(batch_size):
        mu, logvar = network.encoder(batch)
        z = mu + torch.randn(mu.shape).double() * logvar.exp().sqrt()
        rows += [[part.item() for part in loss_fn(network.decoder(z), batch, mu, logvar)]] * len(batch)
    assert parts == pytest.approx(np.mean(rows, axis=0), rel=1e-5, abs=1e-5)


# fit


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("epochs", [1, 3])
def test_the_history_holds_three_floats_an_epoch_that_add_up(epochs, device):
    history = run(build().to(device), epochs=epochs)
    assert list(history) == ["train", "test"]
    for rows in history.values():
        assert [[type(part) for part in row] for row in rows] == [[float] * 3] * epochs
        assert [loss for loss, *_ in rows] == pytest.approx([recon + 0.1 * kl for _, recon, kl in rows])


def test_the_test_row_of_an_epoch_is_its_evaluation():
    model, x, seen = build(), images(3, seed=1), []
    history = run(model, x, loss_fn=elbo_loss, after_epoch=lambda _: seen.append(evaluate(model, x, elbo_loss)))
    assert history["test"] == seen[1:]


@given(SEEDS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans(), LOSSES)
def test_a_run_is_its_epochs(seed, count, batch_size, epochs, one_cycle, loss_fn):
    model, x, test_images, called = build(seed=seed), images(count, seed), images(3, seed=1), []
    twin = copy.deepcopy(model)
    options = dict(epochs=epochs, one_cycle=one_cycle, loss_fn=loss_fn, after_epoch=called.append)
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    history = run(model, test_images, optimizer, loader=Loader(x, x, batch_size), **options)

    torch.manual_seed(0)
    speed.prepare(twin)
    loader, optimizer = Loader(x, x, batch_size), torch.optim.SGD(twin.parameters(), 1e-3)
    steps = dict(total_steps=epochs * len(loader), cycle_momentum=False)
    after_step = OneCycleLR(optimizer, 1e-3, **steps).step if one_cycle else lambda: None
    rows = {"train": [], "test": []}
    for _ in range(epochs):
        with speed.quick_convolutions(twin):
            rows["train"].append(train_epoch(twin, loader, optimizer, loss_fn, after_step=after_step))
        rows["test"].append(evaluate(twin, test_images, loss_fn))
    assert history == rows and called == list(range(epochs + 1))
    assert torch.equal(everything(model), everything(twin))


def test_the_same_seed_gives_the_same_numbers():
    assert run(build(seed=3)) == run(build(seed=3)) != run(build(seed=4))


def test_the_test_images_are_never_trained_on():
    models = [build(), build()]
    for seed, model in enumerate(models):
        torch.manual_seed(0)
        run(model, images(3, seed=1 + seed))
    assert torch.equal(*map(everything, models))


def test_the_loss_goes_down_on_a_few_real_digits():
    digits, model = load_images("mnist-5k"), build(width=4, latent_dim=8)
    loader = Loader(digits.train_images[::40], digits.train_labels[::40], batch_size=20)
    history = run(model, digits.test_images[::20], epochs=6, loader=loader)
    for rows in history.values():
        assert rows[-1][0] < 0.7 * rows[0][0]


def test_the_learning_rate_rises_to_the_optimizers_and_falls_to_nearly_0():
    rates = rates_of(one_cycle=True)
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(0.5) and 0 < peak < len(rates) / 2
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 <= rates[-1] < 0.01 * 0.5


@pytest.mark.parametrize("total", [1, 2, 3, 10, 37, 1000])
@pytest.mark.filterwarnings("ignore:Detected call of")  # PyTorch's schedule wants a step of the optimizer before
def test_the_one_cycle_is_that_of_pytorch_float_by_float(total):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=total, cycle_momentum=False)
    for step in range(total):
        assert one_cycle_rate(4e-3, step, total) == optimizer.param_groups[0]["lr"]
        if step + 1 < total:
            schedule.step()


def test_a_run_leaves_nothing_of_its_schedule_in_the_optimizer():
    model = build()
    optimizer = optimize(model)
    before = [dict(group) for group in optimizer.param_groups]
    run(model, optimizer=optimizer)
    assert [dict(group) for group in optimizer.param_groups] == before


def test_a_resumed_run_takes_the_rate_that_the_optimizer_has_then():
    model, rates = build(), []
    optimizer = optimize(model)
    history = run(model, optimizer=optimizer, epochs=1)
    optimizer.param_groups[0]["lr"] = 1e-5

    def step(*args):
        rates.append(optimizer.param_groups[0]["lr"])
        return train_step(*args)

    run(model, optimizer=optimizer, epochs=4, history=history, train_step=step)
    steps = range(len(load()), 4 * len(load()))
    assert rates == [one_cycle_rate(1e-5, number, steps.stop) for number in steps]


def test_without_one_cycle_a_schedule_of_the_callers_is_left_alone():
    model, rates = build(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    halves = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def step(model, x, optimizer, loss_fn):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        halves.step()
        return 0.0, 0.0, 0.0

    run(model, optimizer=optimizer, epochs=1, one_cycle=False, train_step=step)
    assert rates == [0.5 / 2**n for n in range(len(rates))] and len(rates) > 2


def test_without_one_cycle_the_learning_rate_is_constant():
    assert set(rates_of(one_cycle=False)) == {0.5}


def rates_of(one_cycle):
    rates, model = [], build()

    def step(model, x, optimizer, loss_fn):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        return 0.0, 0.0, 0.0

    run(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), epochs=10, train_step=step, one_cycle=one_cycle)
    assert len(rates) == 10 * len(load())
    return rates


@pytest.mark.parametrize("one_cycle", [True, False])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ZeroDivisionError])
def test_the_learning_rates_are_restored_however_the_run_ends(error, one_cycle):
    model, stop = build(), stopping(4, error)
    optimizer = torch.optim.SGD(
        [{"params": [weight], "lr": 1 / (2 + n)} for n, weight in enumerate(model.parameters())]
    )
    rates = [group["lr"] for group in optimizer.param_groups]

    def step(*args):
        if error:
            stop()
        return train_step(*args)

    with pytest.raises(error) if error is ZeroDivisionError else nullcontext():
        run(model, optimizer=optimizer, train_step=step, one_cycle=one_cycle)
    assert [group["lr"] for group in optimizer.param_groups] == rates


@pytest.mark.parametrize("one_cycle", [True, False])
def test_a_second_run_trains_again_in_train_mode(one_cycle):
    model, seen = build(), []
    optimizer = optimize(model)
    run(model, optimizer=optimizer, one_cycle=one_cycle)
    before = weights(model.eval())

    def step(model, *args):
        seen.append(all(modes(model)))
        return train_step(model, *args)

    assert len(run(model, optimizer=optimizer, one_cycle=one_cycle, train_step=step)["train"]) == 2
    assert seen == [True] * 2 * len(load())
    assert not torch.isclose(weights(model), before, rtol=0, atol=1e-4).all()


def test_after_epoch_is_called_before_training_and_after_every_epoch():
    model, seen = build(), []
    untrained = weights(model)
    run(model, epochs=3, after_epoch=lambda epoch: seen.append((epoch, torch.equal(weights(model), untrained))))
    assert seen == [(0, True), (1, False), (2, False), (3, False)]


@pytest.mark.parametrize(("calls", "epochs_done"), [(1, 0), (2, 1), (3, 2)])
def test_ctrl_c_in_after_epoch_returns_the_history_so_far(calls, epochs_done):
    model, stop = build(), stopping(calls, KeyboardInterrupt)
    history = run(model, epochs=4, after_epoch=lambda _: stop())
    assert {name: len(rows) for name, rows in history.items()} == {"train": epochs_done, "test": epochs_done}
    still_works(model)


@pytest.mark.parametrize(("calls", "epochs_done"), [(1, 0), (3, 0), (4, 1), (8, 2)])
def test_ctrl_c_in_a_step_returns_the_history_so_far(calls, epochs_done):
    model, stop = build(), stopping(calls, KeyboardInterrupt)
    history = run(model, epochs=4, train_step=lambda *args: stop() or train_step(*args))
    assert {name: len(rows) for name, rows in history.items()} == {"train": epochs_done, "test": epochs_done}
    still_works(model)


def test_ctrl_c_between_training_and_evaluation_keeps_both_lists_in_step():
    model, stop = build(), stopping(2, KeyboardInterrupt)

    def loss_fn(*args):
        return vae_loss(*args) if torch.is_grad_enabled() else stop() or vae_loss(*args)

    history = run(model, epochs=4, loss_fn=loss_fn)
    still_works(model)
    assert len(history["train"]) == len(history["test"])


def still_works(model):
    assert all(map(math.isfinite, evaluate(model, images(3))))
    assert len(run(model, epochs=1)["test"]) == 1


@pytest.mark.parametrize(("cap", "epochs_run"), [("1", 1), ("2", 2), ("50", 3), ("", 3)])
def test_the_variable_caps_the_epochs(cap, epochs_run, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", cap)
    assert [len(rows) for rows in run(build(), epochs=3).values()] == [epochs_run] * 2


@pytest.mark.parametrize("cap", ["0", "-1", "1.5", "many", " "])
def test_a_cap_that_is_no_positive_whole_number_is_refused_before_training(cap, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", cap)
    with pytest.raises(ValueError, match=rf"^VAE_TUTORIAL_EPOCHS must be a whole number of at least 1, but is '{cap}'"):
        run(build(), train_step=lambda *args: pytest.fail("trained"))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_run_whose_loss_is_not_finite_is_ended(loss):
    with pytest.raises(FloatingPointError, match=f"The loss is {loss}: the weights are lost"):
        run(build(), loss_fn=lambda recon, x, mu, logvar: (loss * recon.sum().abs(), mu.sum(), logvar.sum()))


@pytest.mark.parametrize(
    ("weights_of", "missing"),
    [(lambda model: model.encoder, "decoder.conv1.weight"), (lambda model: build(), "encoder.conv1.weight")],
)
def test_an_optimizer_that_lacks_weights_of_the_model_is_refused(weights_of, missing):
    model = build()
    with pytest.raises(AssertionError) as error:
        run(model, optimizer=optimize(weights_of(model)), train_step=lambda *args: pytest.fail("trained"))
    assert str(error.value).startswith(f"the optimizer lacks {missing}: build it from model.parameters()")


def test_weights_that_are_not_trained_may_be_missing_in_the_optimizer():
    model = build()
    model.encoder.requires_grad_(False)
    before = weights(model.encoder)
    run(model, optimizer=optimize(model.decoder))
    assert torch.equal(weights(model.encoder), before)


def test_a_history_that_is_given_is_filled_in_place():
    history = {"train": [], "test": []}
    assert run(build(), history=history) is history
    assert [len(rows) for rows in history.values()] == [2, 2]


def test_a_previous_history_is_resumed():
    model, seen = build(), []
    optimizer = optimize(model)
    history = run(model, optimizer=optimizer, epochs=2, one_cycle=False)
    first = copy.deepcopy(history)
    options = dict(optimizer=optimizer, epochs=5, one_cycle=False, after_epoch=seen.append, history=history)
    assert run(model, **options) is history and seen == [3, 4, 5]
    assert all(history[part][:2] == first[part] and len(history[part]) == 5 for part in first)


@pytest.mark.parametrize("one_cycle", [True, False])
def test_a_process_that_shows_no_bar_trains_as_one_that_does(one_cycle, monkeypatch, capsys):
    shown = run(build(), one_cycle=one_cycle)
    assert capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    assert run(build(), one_cycle=one_cycle) == shown and not capsys.readouterr().out


@pytest.mark.parametrize("one_cycle", [True, False])
def test_a_run_that_is_stopped_after_an_epoch_and_resumed_is_the_whole_run(one_cycle):
    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    whole, halved = build(), build()
    optimizer, loader = optimize(halved), load()
    torch.manual_seed(0)
    wanted = run(whole, epochs=4, one_cycle=one_cycle)
    torch.manual_seed(0)
    options = dict(optimizer=optimizer, loader=loader, epochs=4, one_cycle=one_cycle)
    history = run(halved, after_epoch=stop, **options)
    assert [len(rows) for rows in history.values()] == [2, 2]
    assert run(halved, history=history, **options) == wanted
    assert torch.equal(everything(halved), everything(whole))


def test_a_history_that_holds_all_epochs_is_not_trained_on():
    model = build()
    history = run(model, epochs=2)
    before = everything(model)
    run(model, epochs=2, history=history, train_step=lambda *args: pytest.fail("trained"))
    assert torch.equal(everything(model), before)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (3, 1), (9, 4)])
def test_a_batch_of_one_is_trained_on(count, batch_size):
    model = build()
    before = weights(model)
    history = run(model, loader=load(count, batch_size), epochs=2)
    assert all(math.isfinite(part) for rows in history.values() for row in rows for part in row)
    assert not torch.equal(weights(model), before)


def test_weights_lost_in_the_last_step_of_an_epoch_are_no_result():
    model, seen = build(), []

    def step(model, *args):
        parts = train_step(model, *args)
        seen.append(parts)
        if len(seen) == len(load()):
            with torch.no_grad():
                model.decoder.conv4.bias.fill_(math.nan)
        return parts

    history = {"train": [], "test": []}
    with pytest.raises(FloatingPointError, match="The loss is nan: the weights are lost"):
        run(model, history=history, train_step=step)
    assert history == {"train": [], "test": []}
