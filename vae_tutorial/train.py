"""Train a VAE: one step, one epoch, a whole run; and measure its loss on images that it is not trained on.

Shapes: B images a batch, N in a set, C channels; images are 32x32.
"""

import math
import os
import sys
from contextlib import contextmanager
from functools import partial

import torch
from IPython import get_ipython
from IPython.display import Pretty, display
from tqdm import tqdm

from vae_tutorial import speed
from vae_tutorial.loss import vae_loss
from vae_tutorial.model import eval_mode


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
    """Take a step on every batch of the loader, in train mode; return the mean (loss, recon_loss, kl_loss).

    loader: gives (x, labels), x: (B, C, 32, 32) in [-1, 1]; after_step() is called after every step.
    The means are over the images. Each batch is measured before the step that it makes.
    Raises FloatingPointError when the loss is no longer finite.
    """
    device = next(model.parameters()).device
    model.train()
    rows = []
    for x, _ in loader:
        parts = train_step(model, x.to(device), optimizer, loss_fn)
        _check_finite(parts[0], optimizer)
        rows.append((len(x), parts))
        if after_step is not None:
            after_step()
    return _mean_over_images(rows)


@torch.no_grad()
def evaluate(model, images, loss_fn=vae_loss, seed=0, batch_size=500):
    """Return the mean (loss, recon_loss, kl_loss) over a set, as floats. Every loss in this tutorial is measured so.

    images: (N, C, 32, 32) in [-1, 1]. z is sampled as in training, from noise that the seed fixes, but BatchNorm is in
    eval mode. The model's mode and the global random state stay as they were.
    """
    device = next(model.parameters()).device
    model = getattr(model, "module", model)  # what DistributedDataParallel wraps
    rows = []
    with eval_mode(model), _own_noise(seed, device):
        for part in model.modules():  # the models of this tutorial sample z in train mode
            part.training = not type(part).__module__.startswith("torch.nn.")  # PyTorch's layers stay in eval mode
        for x in images.split(batch_size):
            x = x.to(device)
            recon, mu, logvar = model(x)
            rows.append((len(x), [float(part) for part in loss_fn(recon, x, mu, logvar)]))
    return _mean_over_images(rows)


def fit(model, loader, test_images, *, optimizer, epochs=40, one_cycle=True, loss_fn=vae_loss, train_step=train_step,
        after_epoch=None, history=None):  # fmt: skip
    """Train a model; return {"train": [...], "test": [...]}, a (loss, recon_loss, kl_loss) for every epoch.

    loader: gives (x, labels), x: (B, C, 32, 32) in [-1, 1]; test_images: (N, C, 32, 32), measured after each epoch.
    one_cycle lets the learning rate rise to the optimizer's and fall to nearly 0 (Smith & Topin 2018); else it is
    constant. after_epoch(epoch) is called before training, with 0, and after each epoch. Pass a previous history to
    resume, with its model and optimizer. VAE_TUTORIAL_EPOCHS caps the epochs. Ctrl-C ends the run early; model and
    history stay usable.
    Raises FloatingPointError when the loss is no longer finite.
    """
    _check_weights(model, optimizer)
    epochs = capped(epochs)
    history = {"train": [], "test": []} if history is None else history
    done = len(history["train"])
    speed.prepare(model, optimizer)
    if done >= epochs:
        return history
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = _one_cycle(optimizer, rates, epochs * len(loader), done * len(loader)) if one_cycle else None
    bar = _progress_bar(epochs * len(loader), done * len(loader))

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
            test_parts = evaluate(model, test_images, loss_fn)
            _check_finite(test_parts[0], optimizer)  # the last step may have lost the weights
            # both at once, so that Ctrl-C finds the two lists equally long
            history.update(train=[*history["train"], train_parts], test=[*history["test"], test_parts])
            bar.set_postfix_str("test total {:.4f}, recon {:.4f}, KL {:.4f}".format(*test_parts))
            if after_epoch is not None:
                after_epoch(epoch)
    except KeyboardInterrupt:
        bar.set_description(f"stopped after {len(history['test'])} of {epochs} epochs")
    finally:
        bar.close()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    return history


def capped(epochs):
    """Return epochs, or VAE_TUTORIAL_EPOCHS where that is less."""
    cap = os.environ.get("VAE_TUTORIAL_EPOCHS") or str(epochs)
    if not cap.isdecimal() or int(cap) < 1:
        raise ValueError(f"VAE_TUTORIAL_EPOCHS must be a whole number of at least 1, but is {cap!r}.")
    return min(epochs, int(cap))


def _mean_over_images(rows):
    """Average what batches gave, [(number of images, (loss, recon_loss, kl_loss)), ...], over the images."""
    count = sum(images for images, _ in rows)
    return tuple(sum(images * parts[i] for images, parts in rows) / count for i in range(3))


def _check_weights(model, optimizer):
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in held]
    assert not missing, f"the optimizer lacks {missing[0]}: build it from model.parameters(), after the model"


def _check_finite(loss, optimizer):
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


def _progress_bar(steps, done):
    hidden = int(os.environ.get("RANK", 0)) > 0  # under torchrun the first process alone shows its bar
    layout = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}"
    return tqdm(initial=done, total=steps, bar_format=layout, mininterval=0.5, file=_Line(), disable=hidden)


class _Line:
    """What the progress bar writes to: one notebook output, replaced each time, or else the standard output.

    An export of the notebook then shows the bar as it was last.
    """

    def __init__(self):
        self.handle = display(Pretty(""), display_id=True) if hasattr(get_ipython(), "kernel") else None
        self.encoding = "utf-8" if self.handle else sys.stdout.encoding  # tqdm draws blocks, or # where it must

    def write(self, text):
        if self.handle is None:
            sys.stdout.write(text)
        elif text.strip():
            self.handle.update(Pretty(text.strip()))

    def flush(self):
        sys.stdout.flush()


def random_state(device):
    """Return the states of the generators that draw noise on a device: the CPU's, and its own if it is another."""
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
def _own_noise(seed, device):
    """Seed the generators that draw noise on a device, and put them back as they were at the end."""
    states = random_state(device)
    set_random_state(device, [torch.Generator(kind).manual_seed(seed).get_state() for kind in ("cpu", device)])
    try:
        yield
    finally:
        set_random_state(device, states)
