"""Hypothesis calls what trains a run, saves it and shares it with arguments of every kind, as test_fuzz the rest."""

import copy
from functools import wraps
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz import FEW, SIZES, SPOILT, WORDS, near, tensors, try_once
from torch.optim.lr_scheduler import OneCycleLR
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from vae_tutorial import speed
from vae_tutorial.checkpoint import load_checkpoint, save_checkpoint
from vae_tutorial.data import Loader
from vae_tutorial.loss import elbo_loss, vae_loss
from vae_tutorial.model import VAE, Decoder, Encoder
from vae_tutorial.parallel import Part
from vae_tutorial.train import capped, evaluate, fit, train_epoch, train_step

RATE, CAP, ROW = 1e-3, 2, (1.0, 2.0, 3.0)
PARTS = st.lists(st.just(ROW), max_size=3) | st.sampled_from([None, (), 3])
HISTORIES = st.fixed_dictionaries({"train": PARTS, "held_out": PARTS})
SPOILS = SPOILT | st.lists(st.tuples(SPOILT, SPOILT), max_size=2) | HISTORIES | st.integers(-2, 9)
INSIDE = SPOILS.filter(lambda value: not (isinstance(value, str) and set(value) & set("/\\:")))  # the test's folder


class Calls(list):
    """A function that keeps what it is called with."""

    def __call__(self, *arguments):
        self.append(arguments)


def with_a_copy(function):
    """Return the function, made to return its arguments too, as they were before."""

    @wraps(function)
    def call(**arguments):
        before = SimpleNamespace(**copy.deepcopy(arguments))
        return function(**arguments), before

    return call


def build(seed, training=True):
    torch.manual_seed(seed)
    return VAE(Encoder(1, 1, 2), Decoder(1, 1, 2)).train(training)


def begun(seed):
    """Return what a run that has made a step trains with."""
    model = build(seed)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    return dict(model=model, optimizer=optimizer, loader=Loader(torch.zeros(3, 1), torch.zeros(3), seed=seed))


def exactly(got, want):
    assert_close(got, want, rtol=0, atol=0, equal_nan=True)


# the laws


def number_is_capped(number, epochs):
    assert number == min(epochs, CAP)


def epoch_is_its_steps(result, model, loader, after_step, loss_fn, **given):
    means, before = result
    torch.manual_seed(0)
    rows, batches = [], 0
    for x, _ in loader:
        recon, mu, logvar = before.model.train()(x)
        parts = loss_fn(recon, x, mu, logvar)
        with torch.no_grad():
            weights = list(before.model.parameters())
            for weight, gradient in zip(weights, torch.autograd.grad(parts[0], weights), strict=True):
                weight.add_(gradient, alpha=-RATE)  # rounded as SGD does: BatchNorm of one image magnifies a rounding
        rows += [torch.stack(parts).detach().double()] * len(x)
        batches += 1
        if before.after_step is not None:
            before.after_step()  # it may draw noise too
    near(torch.tensor(means).double(), torch.stack(rows).mean(dim=0), x)
    assert_close(model.state_dict(), before.model.state_dict())
    assert all(part.training for part in model.modules())
    assert not isinstance(after_step, Calls) or after_step == [()] * batches


def parts_are_those_of_a_loop_over_doubles(result, model, images, loss_fn, seed, batch_size):
    parts, before = result
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(0).get_state())
    assert [part.training for part in model.modules()] == [part.training for part in before.model.modules()]
    exactly(model.state_dict(), before.model.state_dict())
    network, rows = before.model.double().eval(), []
    torch.manual_seed(seed)
    for start in range(0, len(images), batch_size):
        x = images[start : start + batch_size].double()
        mu, logvar = network.encoder(x)
        z = mu + torch.randn(mu.shape).double() * logvar.exp().sqrt()
        rows += [torch.stack(loss_fn(network.decoder(z), x, mu, logvar)).detach()] * len(x)
    near(torch.tensor(parts, dtype=torch.float64), torch.stack(rows).mean(dim=0), images)


def run_is_its_epochs(result, model, loader, optimizer, held_out_images, loss_fn, one_cycle, history, **given):
    returned, before = result
    rows, epochs = before.history or {"train": [], "held_out": []}, min(given["epochs"], CAP)
    first = len(rows["train"]) + 1
    after_step = None
    if one_cycle:
        steps = dict(total_steps=epochs * len(loader), cycle_momentum=False)
        after_step = OneCycleLR(before.optimizer, RATE, **steps).step
    run = before.model, loader, before.optimizer, loss_fn, train_step, after_step
    speed.prepare(before.model)
    after_epoch = before.after_epoch or (lambda epoch: None)  # it may draw noise too
    torch.manual_seed(0)
    if first == 1:
        after_epoch(0)
    for epoch in range(first, epochs + 1):
        with speed.quick_convolutions(before.model):
            rows["train"] = [*rows["train"], train_epoch(*run)]
        rows["held_out"] = [*rows["held_out"], evaluate(before.model, held_out_images, loss_fn)]
        after_epoch(epoch)
    exactly(returned, rows)
    exactly(model.state_dict(), before.model.state_dict())
    assert history is None or history is returned
    assert [group["lr"] for group in optimizer.param_groups] == [RATE]
    called = [(epoch,) for epoch in range(first if first > 1 else 0, epochs + 1)]
    assert not isinstance(given["after_epoch"], Calls) or given["after_epoch"] == called


def parts_together_are_the_batches(part, loader, rank, count):
    batches = [(x[: len(x) // count * count], y[: len(y) // count * count]) for x, y in loader if len(x) >= count]
    assert len(part) == len(list(part)) == len(batches)
    parts = [Part(loader, other, count) for other in range(count if batches else 0)]
    for batch, shares in zip(batches, zip(*parts, strict=True), strict=True):
        for whole, share in zip(batch, zip(*shares, strict=True), strict=True):
            assert torch.equal(torch.stack(share, dim=1).flatten(0, 1), whole)
    for (_, mine), (_, whole) in zip(part, batches, strict=True):
        assert mine[0] == whole[rank]


def it_is_loaded_as_it_was(_, path, history, settings, noise, model, optimizer, loader):
    other = begun(9)
    for process, (state, *_) in enumerate(noise):
        exactly(load_checkpoint(path, **other, settings=settings, process=process), history)
        exactly(torch.get_rng_state(), state)
    exactly(other["model"].state_dict(), model.state_dict())
    exactly(other["optimizer"].state_dict()["state"], optimizer.state_dict()["state"])
    exactly(other["loader"].generator.get_state(), loader.generator.get_state())


def all_is_as_the_file_has_it(history, path, model, optimizer, loader, settings, process):
    saved = torch.load(path, weights_only=True)
    assert process in range(len(saved["noise"]))
    exactly(history, saved["history"])
    exactly(model.state_dict(), saved["model"])
    exactly(optimizer.state_dict()["state"], saved["optimizer"]["state"])
    exactly(loader.generator.get_state(), saved["order"])
    exactly(torch.get_rng_state(), saved["noise"][process][0])
    assert [group["lr"] for group in optimizer.param_groups] == [RATE]


# the cases


def trained(draw):
    model = build(draw(SIZES), draw(st.booleans()))
    x, size = draw(tensors((draw(FEW), 1, 32, 32), [torch.float32])), draw(SIZES)
    x = x + torch.linspace(-1, 1, 32)  # not even: BatchNorm would magnify the rounding
    y = torch.zeros(len(x))
    batches = list(zip(x.split(size), y.split(size), strict=True))
    loaders = [Loader(x, y, size, seed=None), DataLoader(TensorDataset(x, y), size), batches]
    return dict(
        model=st.just(model),
        loader=st.sampled_from(loaders),
        optimizer=st.just(torch.optim.SGD(model.parameters(), RATE)),
        loss_fn=LOSSES,
        train_step=st.just(train_step),
    )


def whole_run(draw):
    done = draw(st.integers(0, 3))
    return dict(
        **trained(draw),
        held_out_images=IMAGES,
        epochs=st.integers(1, 3),
        one_cycle=st.just(False) if done else st.booleans(),
        after_epoch=CALLS,
        history=st.just({"train": [ROW] * done, "held_out": [ROW] * done}) if done else st.none(),
    )


def shared(draw):
    numbers, count = torch.arange(draw(st.integers(1, 9))), draw(FEW)
    loader = Loader(numbers[:, None].float(), numbers, draw(st.integers(1, 5)), seed=None)
    return dict(loader=st.just(loader), rank=st.integers(0, count - 1), count=st.just(count))


def saved(draw):
    length = draw(st.integers(0, 2))
    rows = st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 3), min_size=length, max_size=length)
    states = SIZES.map(lambda seed: [torch.Generator().manual_seed(seed).get_state()])
    return dict(
        path=st.sampled_from(["c.pt", Path("größer als 1.pt")]),
        **{name: st.just(piece) for name, piece in begun(draw(SIZES)).items()},
        history=st.fixed_dictionaries({"train": rows, "held_out": rows}),
        settings=st.dictionaries(WORDS, WORDS | SIZES | st.floats(0, 1), max_size=3),
        noise=st.lists(states, min_size=1, max_size=3),
    )


def loaded(draw):
    run = {name: draw(strategy) for name, strategy in saved(draw).items()}
    save_checkpoint(**run)
    pieces = dict(begun(9), path=run["path"], settings=run["settings"])
    return dict(
        **{name: st.just(piece) for name, piece in pieces.items()}, process=st.integers(0, len(run["noise"]) - 1)
    )


IMAGES, CALLS = tensors((3, 1, 32, 32), [torch.float32]), st.none() | st.builds(Calls)
LOSSES = st.sampled_from([vae_loss, elbo_loss])
CASES = [
    (capped, lambda draw: dict(epochs=st.integers(1, 9)), number_is_capped),
    (with_a_copy(train_epoch), lambda draw: dict(**trained(draw), after_step=CALLS), epoch_is_its_steps),
    (
        with_a_copy(evaluate),
        lambda draw: dict(
            model=st.builds(build, SIZES, st.booleans()),
            images=IMAGES,
            loss_fn=LOSSES,
            seed=st.integers(0, 99),
            batch_size=FEW,
        ),
        parts_are_those_of_a_loop_over_doubles,
    ),
    (with_a_copy(fit), whole_run, run_is_its_epochs),
    (Part, shared, parts_together_are_the_batches),
    (save_checkpoint, saved, it_is_loaded_as_it_was),
    (load_checkpoint, loaded, all_is_as_the_file_has_it),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
@given(data=st.data())
def test_a_run_is_right_or_the_argument_is_named(case, data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", str(CAP))
    try_once(data, *case, INSIDE)
