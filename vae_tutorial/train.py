"""Train a VAE: one step, one epoch, a whole run, and how good it is on held-out images."""

import math
import os
import sys
from contextlib import contextmanager
from functools import partial

import torch
from IPython import get_ipython
from IPython.display import Pretty, display
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
    Raises FloatingPointError when the loss is no longer finite, ValueError for a loader without a batch.
    """
    device = next(model.parameters()).device
    model.train()
    sums, count = [0.0, 0.0, 0.0], 0
    for x, _ in loader:
        parts = train_step(model, x.to(device), optimizer, loss_fn)
        _require_finite(parts[0], optimizer)
        sums = [total + part * len(x) for total, part in zip(sums, parts, strict=True)]
        count += len(x)
        if after_step:
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
    Raises ValueError for an empty set.
    """
    if len(images) == 0:
        raise ValueError("images is empty: evaluate needs at least one image.")
    model = model.module if isinstance(model, DistributedDataParallel) else model
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    model.training = True  # of this module alone: the model samples z, its BatchNorm layers stay in eval mode
    sums = torch.zeros(3, dtype=torch.float64)
    try:
        with _noise_of_its_own(seed, device):
            for x in images.split(batch_size):
                x = x.to(device)
                recon, mu, logvar = model(x)
                parts = loss_fn(recon, x, mu, logvar)
                sums += len(x) * torch.stack(parts).cpu().double()
    finally:
        model.train(was_training)
    return tuple((sums / len(images)).tolist())


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
    Raises ValueError when the optimizer lacks weights of the model and for epochs (or a cap) below 1,
    FloatingPointError when the loss is not finite.
    """
    epochs = capped(epochs)
    _require_all_weights(model, optimizer)
    speed.prepare(model)
    history = {"train": [], "held_out": []} if history is None else history
    done = len(history["held_out"])
    if done >= epochs:
        return history
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = _one_cycle(optimizer, rates, epochs * len(loader), done * len(loader)) if one_cycle else None
    bar_format = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}"
    steps = dict(initial=done * len(loader), total=epochs * len(loader))
    hidden = int(os.environ.get("RANK", 0)) > 0  # of several processes, which torchrun numbers, the first shows its bar
    bar = tqdm(**steps, bar_format=bar_format, mininterval=0.5, file=_Line(), disable=hidden)

    def after_step():
        bar.update()
        if scheduler:
            scheduler.step()

    try:
        if after_epoch and done == 0:
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
            if after_epoch:
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
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps, cycle_momentum=False, last_epoch=done - 1
    )


def capped(epochs):
    """Return epochs, or VAE_TUTORIAL_EPOCHS where that is less."""
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs must be a whole number of at least 1, but is {epochs!r}.")
    cap = os.environ.get("VAE_TUTORIAL_EPOCHS") or str(epochs)
    if not cap.isdecimal() or int(cap) < 1:
        raise ValueError(f"VAE_TUTORIAL_EPOCHS must be a whole number of at least 1, but is {cap!r}.")
    return min(epochs, int(cap))


def _require_all_weights(model, optimizer):
    """Raise ValueError unless the optimizer holds every weight that the model trains."""
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in held]
    if missing:
        raise ValueError(
            f"The optimizer does not hold {len(missing)} of the model's weights, {missing[0]} the first: "
            f"build it from model.parameters(), after the model."
        )


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
    """Seed the global generators, and put them back as they were at the end."""
    states = random_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(device, states)
