"""Train a VAE: one step, one epoch, a whole run, and how good it is on held-out images."""

import math
import os
import sys
from contextlib import contextmanager
from functools import partial
from numbers import Real
from operator import length_hint

import torch
from IPython import get_ipython
from IPython.display import Pretty, display
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vae_tutorial import speed
from vae_tutorial.loss import vae_loss


def train_step(model, x, optimizer, loss_fn):
    """Change the model's weights once, to lower the loss on one batch.

    x: (B, C, 32, 32) in [-1, 1] -> (loss, recon_loss, kl_loss), floats, as loss_fn reduces them, before
    the change.
    """
    recon, mu, logvar = model(x)
    # loss_fn takes recon, x, mu, logvar and returns the loss and its two parts
    loss, recon_loss, kl_loss = loss_fn(recon, x, mu, logvar)
    # clear the old gradients, compute the new ones, change the weights
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), recon_loss.item(), kl_loss.item()


def train_epoch(model, loader, optimizer, loss_fn=vae_loss, train_step=train_step, after_step=None):
    """Show the model every batch of the loader once, in train mode; return the mean (loss, recon_loss, kl_loss).

    loader gives (x, labels), x: (B, C, 32, 32) in [-1, 1]; after_step() is called after every step.
    The means are over the images, each taken before the step that its batch made.
    Raises FloatingPointError when the loss is no longer finite, ValueError for a loader without a batch, TypeError for
    an argument of another kind.
    """
    device = device_of(model)
    require_optimizer(optimizer)
    require(callable(loss_fn), "loss_fn", "a function of (recon, x, mu, logvar)", loss_fn)
    require(callable(train_step), "train_step", "a function of (model, x, optimizer, loss_fn)", train_step)
    require(after_step is None or callable(after_step), "after_step", "None or a function of ()", after_step)
    model.train()
    sums, count = [0.0, 0.0, 0.0], 0
    for x in _images_of(loader):
        parts = _floats("train_step", train_step(model, x.to(device), optimizer, loss_fn))
        _require_finite(parts[0], optimizer)
        sums = [total + part * len(x) for total, part in zip(sums, parts, strict=True)]
        count += len(x)
        if after_step is not None:
            after_step()
    if count == 0:
        raise ValueError("The loader gives no batch: it needs at least one image.")
    return tuple(total / count for total in sums)


@torch.no_grad()
def evaluate(model, images, loss_fn=vae_loss, seed=0, batch_size=500):
    """Return the mean (loss, recon_loss, kl_loss) over a set, as floats; every figure in this tutorial is this one.

    images: (N, C, 32, 32) in [-1, 1]. BatchNorm is in eval mode, but z is sampled, from noise of its own that the
    seed fixes: model.training is True for the model alone, whose own forward must go by it. The global generators and
    the model's mode stay as they were.
    Raises ValueError for an empty set and for numbers that are not whole, TypeError for arguments of another kind.
    """
    device = device_of(model)
    _require_images("images", images)
    require(callable(loss_fn), "loss_fn", "a function of (recon, x, mu, logvar)", loss_fn)
    _require_whole(0, seed=seed)
    _require_whole(1, batch_size=batch_size)
    model = model.module if isinstance(model, DistributedDataParallel) else model
    was_training = model.training
    model.eval()
    model.training = True  # of this module alone: the model samples z, its BatchNorm layers stay in eval mode
    sums = [0.0, 0.0, 0.0]
    try:
        with _noise_of_its_own(seed, device):
            for x in images.split(min(batch_size, len(images))):
                x = x.to(device)
                recon, mu, logvar = model(x)
                parts = _floats("loss_fn", loss_fn(recon, x, mu, logvar))
                sums = [total + part * len(x) for total, part in zip(sums, parts, strict=True)]
    finally:
        model.train(was_training)
    return tuple(total / len(images) for total in sums)


def fit(
    model,
    loader,
    held_out_images,
    *,
    optimizer,
    epochs=40,
    one_cycle=True,
    loss_fn=vae_loss,
    train_step=train_step,
    after_epoch=None,
    history=None,
):
    """Train a model; return {"train": [...], "held_out": [...]}, a (loss, recon_loss, kl_loss) for every epoch.

    loader gives (x, labels), x: (B, C, 32, 32) in [-1, 1]; held_out_images: (N, C, 32, 32).
    one_cycle lets the learning rate rise to the optimizer's and fall to nearly 0 (Smith & Topin 2018); else it is
    constant. after_epoch(epoch) is called before training, with 0, and after each epoch. history is filled in place;
    one that holds epochs is gone on with, given the model and the optimizer as they were after them.
    VAE_TUTORIAL_EPOCHS caps the epochs. Ctrl-C ends the run early: model and history stay usable.
    Raises ValueError when the optimizer lacks weights of the model and for epochs (or a cap) below 1, TypeError for
    arguments of another kind, FloatingPointError when the loss is not finite.
    """
    epochs = capped(epochs)
    device_of(model)
    _require_all_weights(model, optimizer)
    _require_images("held_out_images", held_out_images)
    require(after_epoch is None or callable(after_epoch), "after_epoch", "None or a function of (epoch)", after_epoch)
    require(isinstance(one_cycle, bool), "one_cycle", "True or False", one_cycle)
    batches = length_hint(loader)  # 0 for a loader without len()
    require(batches > 0, "loader", "of one batch or more, with len() to count them", loader)
    history = {"train": [], "held_out": []} if history is None else history
    done = epochs_in(history)
    speed.prepare(model, optimizer)
    if done >= epochs:
        return history
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = _one_cycle(optimizer, rates, epochs * batches, done * batches) if one_cycle else None
    bar_format = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}"
    steps = dict(initial=done * batches, total=epochs * batches)
    hidden = int(os.environ.get("RANK", 0)) > 0  # of several processes, which torchrun numbers, the first shows its bar
    bar = tqdm(**steps, bar_format=bar_format, mininterval=0.5, file=_Line(), disable=hidden)

    def after_step():
        bar.update()
        if scheduler:
            scheduler.step()

    try:
        if after_epoch is not None and done == 0:
            after_epoch(0)
        for epoch in range(done + 1, epochs + 1):
            bar.set_description(f"epoch {epoch}/{epochs}")
            with speed.quick_convolutions(model):
                train_parts = train_epoch(model, loader, optimizer, loss_fn, train_step, after_step)
            held_out_parts = evaluate(model, held_out_images, loss_fn)
            _require_finite(held_out_parts[0], optimizer)  # the last step may have lost the weights
            # both at once, so that Ctrl-C finds the two lists equally long
            history.update(train=[*history["train"], train_parts], held_out=[*history["held_out"], held_out_parts])
            bar.set_postfix_str("held-out total {:.4f}, recon {:.4f}, KL {:.4f}".format(*held_out_parts))
            if after_epoch is not None:
                after_epoch(epoch)
    except KeyboardInterrupt:
        bar.set_description(f"stopped after {len(history['held_out'])} of {epochs} epochs")
    finally:
        bar.close()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    return history


class _Line:
    """What the progress bar writes to: a notebook output that each text replaces, so that an export shows the last
    one alone; outside a notebook, the standard output."""

    def __init__(self):
        self.handle = display(Pretty(""), display_id=True) if hasattr(get_ipython(), "kernel") else None
        self.encoding = "utf-8" if self.handle else sys.stdout.encoding  # tqdm goes by it: a bar of blocks, or of #

    def write(self, text):
        if self.handle is None:
            sys.stdout.write(text)
        elif text.strip():
            self.handle.update(Pretty(text.strip()))

    def flush(self):
        sys.stdout.flush()


def _require_finite(loss, optimizer):
    if not math.isfinite(loss):
        group = optimizer.param_groups[0]
        raise FloatingPointError(
            f"The loss is {loss}: the weights are lost. Build the model and the optimizer anew, with a "
            f"learning rate below {group.get('max_lr', group['lr']):.1e}, and check that x lies in [-1, 1]."
        )


def _one_cycle(optimizer, rates, steps, done):
    if done and any("max_lr" not in group for group in optimizer.param_groups):
        raise ValueError(
            "history holds epochs, but optimizer does not know their one-cycle schedule: give the optimizer as it was "
            "after them, or one_cycle=False, or a history that is empty."
        )
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps, cycle_momentum=False, last_epoch=done - 1
    )


def capped(epochs):
    """Return epochs, or VAE_TUTORIAL_EPOCHS where that is less."""
    if type(epochs) is not int or epochs < 1:
        raise ValueError(f"epochs must be a whole number of at least 1, but is {epochs!r:.60}.")
    cap = os.environ.get("VAE_TUTORIAL_EPOCHS") or str(epochs)
    if not cap.isdecimal() or int(cap) < 1:
        raise ValueError(f"VAE_TUTORIAL_EPOCHS must be a whole number of at least 1, but is {cap!r}.")
    return min(epochs, int(cap))


def require(fits, name, wanted, given):
    """Raise TypeError unless what is given for an argument fits what is wanted."""
    if not fits:
        raise TypeError(f"{name} must be {wanted}, but is {given!r:.60}.")


def device_of(model):
    """Return the device of a model's weights; raise TypeError for what has none."""
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    require(weight is not None, "model", "a network with weights", model)
    return weight.device


def require_optimizer(optimizer):
    """Raise TypeError unless it is an optimizer of PyTorch's."""
    require(isinstance(optimizer, torch.optim.Optimizer), "optimizer", "one of torch.optim", optimizer)


def epochs_in(history):
    """Return how many epochs a history holds; raise TypeError for what is none."""
    match history:
        case {"train": [*train], "held_out": [*held_out]} if len(train) == len(held_out):
            return len(train)
    raise TypeError(f"history must be two lists, train and held_out, as fit returns them, but is {history!r:.60}.")


def _require_all_weights(model, optimizer):
    """Raise ValueError unless the optimizer holds every weight that the model trains."""
    require_optimizer(optimizer)
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in held]
    if missing:
        raise ValueError(
            f"The optimizer does not hold {len(missing)} of the model's weights, {missing[0]} the first: "
            f"build it from model.parameters(), after the model."
        )


def _require_images(name, images):
    """Raise TypeError unless images are a tensor, ValueError when there are none."""
    require(isinstance(images, torch.Tensor) and images.ndim > 0, name, "a tensor (N, C, 32, 32)", images)
    if len(images) == 0:
        raise ValueError(f"{name} is empty: evaluate needs at least one image.")


def _require_whole(least, **numbers):
    """Raise ValueError unless every number is a whole one."""
    for name, number in numbers.items():
        if type(number) is not int or not least <= number < 2**63:
            raise ValueError(f"{name} must be a whole number from {least} to 2**63 - 1, but is {number!r:.60}.")


def _floats(name, parts):
    """Return the parts of the loss as floats; raise TypeError unless the named function returned three numbers."""
    match parts:
        case [_, _, _] if all(isinstance(part, Real) or getattr(part, "ndim", None) == 0 for part in parts):
            return tuple(map(float, parts))
    raise TypeError(f"{name} must return (loss, recon_loss, kl_loss), each one number, but returned {parts!r:.60}.")


def _images_of(loader):
    """Yield x of every (x, labels) that a loader gives; raise TypeError when it gives something else."""
    wanted = "an iterable of (x, labels), x a tensor of images"
    try:
        batches = iter(loader)
    except TypeError:
        require(False, "loader", wanted, loader)
    for batch in batches:
        match batch:
            case [torch.Tensor() as x, _] if x.ndim and len(x):
                yield x
            case _:
                require(False, "loader", wanted, batch)


def random_state(device):
    """Return the states of the generators that draw noise on a device: the CPU's, and its own."""
    return [torch.get_rng_state(), *([] if device.type == "cpu" else [_generator(device)[0]()])]


def set_random_state(device, states):
    """Put the generators back to where random_state found them."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        _generator(device)[1](states[1])


def _generator(device):
    """Return the functions that get and set the state of a device's generator; with several cards, of that card."""
    module = torch.get_device_module(device)
    which = {"device": device} if device.type == "cuda" else {}
    return partial(module.get_rng_state, **which), partial(module.set_rng_state, **which)


@contextmanager
def _noise_of_its_own(seed, device):
    """Seed the generators that draw noise on a device, and put them back as they were at the end."""
    states = random_state(device)
    set_random_state(device, [torch.Generator(kind).manual_seed(seed).get_state() for kind in ("cpu", device)])
    try:
        yield
    finally:
        set_random_state(device, states)
