"""Train a VAE for one step, one epoch or a whole run, and measure its loss on images that it is not trained on.

Shapes: B images per batch, N images in a set, C channels; images are 32x32.
"""

import math
import os
import sys
from contextlib import contextmanager
from functools import partial

import torch
from IPython import get_ipython
from IPython.display import Pretty, display
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vae_tutorial import speed
from vae_tutorial.loss import vae_loss
from vae_tutorial.model import eval_mode


def train_step(model, x, optimizer, loss_fn):
    """Change the model's weights once, to lower the loss on one batch.

    x: (B, C, 32, 32) in [-1, 1] -> (loss, recon_loss, kl_loss), floats, reduced as loss_fn does, computed
    before the change.
    """
    recon, mu, logvar = model(x)
    # loss_fn takes recon, x, mu, logvar and returns the loss and its two parts
    loss, recon_loss, kl_loss = loss_fn(recon, x, mu, logvar)
    # clear the old gradients, compute the new ones, change the weights
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), recon_loss.item(), kl_loss.item()


def train_epoch(model, loader, optimizer, loss_fn=vae_loss, train_step=train_step, after_step=lambda: None):
    """Take a step on every batch of the loader, in train mode; return the mean (loss, recon_loss, kl_loss).

    loader: gives (x, labels), x: (B, C, 32, 32) in [-1, 1]; after_step() is called after every step.
    The means are over the images. The loss of a batch is measured before the step on that batch.
    Raises FloatingPointError when the loss is no longer finite.
    """
    device = next(model.parameters()).device
    model.train()
    rows = []
    for x, _ in loader:
        parts = train_step(model, x.to(device), optimizer, loss_fn)
        _check_finite(parts[0])
        rows.append((len(x), parts))
        after_step()
    return _mean_over_images(rows)


@torch.no_grad()
def evaluate(model, images, loss_fn=vae_loss, seed=0, batch_size=500):
    """Return the mean (loss, recon_loss, kl_loss) over a set, as floats. fit measures the test loss this way.

    images: (N, C, 32, 32) in [-1, 1]. A VAE samples z as in training, since the loss that is minimised is that of
    samples; the seed fixes the noise. BatchNorm and Dropout are in eval mode. The model's mode and the global random
    state are restored.
    """
    device = next(model.parameters()).device
    if isinstance(model, DistributedDataParallel):
        model = model.module  # the wrapper would wait for the other processes
    rows = []
    with eval_mode(model), _own_noise(seed, device):
        for part in model.modules():
            part.training = not _is_layer(part)  # models in train mode, PyTorch's layers in eval mode
        for x in images.split(batch_size):
            x = x.to(device)
            recon, mu, logvar = model(x)
            rows.append((len(x), [float(part) for part in loss_fn(recon, x, mu, logvar)]))
    return _mean_over_images(rows)


def fit(model, loader, test_images, *, optimizer, epochs=40, one_cycle=True, loss_fn=vae_loss, train_step=train_step,
        after_epoch=lambda epoch: None, history=None):  # fmt: skip
    """Train a model; return {"train": [...], "test": [...]}, a (loss, recon_loss, kl_loss) for every epoch.

    loader: gives (x, labels), x: (B, C, 32, 32) in [-1, 1]; test_images: (N, C, 32, 32), measured after each epoch.
    With one_cycle, the learning rate rises to the optimizer's and falls to nearly 0; without it, the rate is constant.
    after_epoch(epoch) is called with 0 before training, and after each epoch. To resume, pass the previous history
    with its model and optimizer; epochs is the total, and history is changed in place. VAE_TUTORIAL_EPOCHS limits the
    epochs. Ctrl-C ends the run early; model and history stay usable.
    Raises FloatingPointError when the loss is no longer finite.
    """
    _check_weights(model, optimizer)
    history = {"train": [], "test": []} if history is None else history
    done, epochs = len(history["train"]), capped(epochs)
    if done >= epochs:
        return history
    speed.prepare(model, optimizer)
    steps = range(done * len(loader), epochs * len(loader))
    with _progress_bar(steps) as bar, _schedule(optimizer, steps, one_cycle) as next_rate:

        def after_step():
            bar.update()
            next_rate()

        try:
            if done == 0:
                after_epoch(0)
            for epoch in range(done + 1, epochs + 1):
                bar.set_description(f"epoch {epoch}/{epochs}")
                with speed.quick_convolutions(model):
                    train_parts = train_epoch(model, loader, optimizer, loss_fn, train_step, after_step)
                test_parts = evaluate(model, test_images, loss_fn)
                _check_finite(test_parts[0])  # the last step may have made the weights useless
                # both at once, so that Ctrl-C finds two lists of one length
                history.update(train=[*history["train"], train_parts], test=[*history["test"], test_parts])
                bar.set_postfix_str("test total {:.4f}, recon {:.4f}, KL {:.4f}".format(*test_parts))
                after_epoch(epoch)
        except KeyboardInterrupt:
            bar.set_description(f"stopped after {len(history['test'])} of {epochs} epochs")
    return history


def one_cycle_rate(peak, step, total):
    """Return the learning rate of one of total steps, counted from 0; the peak comes after 30 % of them.

    It rises from peak / 25 and falls to peak / 250,000, each time along half a cosine.
    Source: Smith & Topin 2018, in the form of PyTorch's OneCycleLR.
    """
    top = 0.3 * total - 1
    start, end, share = peak / 25, peak, step / top
    if step > top:
        start, end, share = peak, peak / 25 / 1e4, (step - top) / (total - 1 - top)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def capped(epochs):
    """Return epochs, but at most VAE_TUTORIAL_EPOCHS if that is set."""
    cap = os.environ.get("VAE_TUTORIAL_EPOCHS")
    if not cap:
        return epochs
    if not cap.isdecimal() or int(cap) < 1:
        raise ValueError(f"VAE_TUTORIAL_EPOCHS must be a whole number of at least 1, but is {cap!r}.")
    return min(epochs, int(cap))


def _is_layer(module):
    """Tell whether a module is one of PyTorch's own, such as BatchNorm or Dropout, or derived from one."""
    return any(kind.__module__.startswith("torch.nn.") for kind in type(module).__mro__ if kind is not nn.Module)


def _mean_over_images(rows):
    """Average the results of batches, [(number of images, (loss, recon_loss, kl_loss)), ...], over the images."""
    count = sum(images for images, _ in rows)
    return tuple(sum(images * parts[i] for images, parts in rows) / count for i in range(3))


def _check_weights(model, optimizer):
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in held]
    assert not missing, f"the optimizer lacks {missing[0]}: build it from model.parameters(), after the model"


def _check_finite(loss):
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"The loss is {loss}: the weights are lost. Build the model and the optimizer anew, with a lower learning "
            f"rate, and check that x lies in [-1, 1]."
        )


@contextmanager
def _schedule(optimizer, steps, one_cycle):
    """Set the first step's learning rates; give a function that sets those of the next; restore them at the end."""
    peaks, counter = [group["lr"] for group in optimizer.param_groups], iter(steps)

    def next_rate():
        step = next(counter, None)
        if one_cycle and step is not None:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = one_cycle_rate(peak, step, steps.stop)

    next_rate()
    try:
        yield next_rate
    finally:
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak


def _progress_bar(steps):
    hidden = int(os.environ.get("RANK", 0)) > 0  # under torchrun the first process alone shows its bar
    layout = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}"
    options = dict(bar_format=layout, mininterval=0.5, file=_Line(), disable=hidden)
    return tqdm(initial=steps.start, total=steps.stop, **options)


class _Line:
    """The stream of the progress bar: in a notebook, one output that is replaced each time; else the standard output.

    An export of the notebook then shows the last state of the bar.
    """

    def __init__(self):
        self.handle = display(Pretty(""), display_id=True) if hasattr(get_ipython(), "kernel") else None
        self.encoding = "utf-8" if self.handle else sys.stdout.encoding  # without blocks in it, tqdm draws "#"

    def write(self, text):
        if self.handle is None:
            sys.stdout.write(text)
        elif text.strip():
            self.handle.update(Pretty(text.strip()))

    def flush(self):
        sys.stdout.flush()


def random_state(device):
    """Return the states of the random generators for a device: the CPU's, and the device's own if it is not the CPU."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        get_state, _ = _generator(device)
        states.append(get_state())
    return states


def set_random_state(device, states):
    """Restore the states that random_state returned."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        _, set_state = _generator(device)
        set_state(states[1])


def _generator(device):
    """Return the functions that get and set the state of the generator of a device; on CUDA, of that very card."""
    module = torch.get_device_module(device)
    which = {"device": device} if device.type == "cuda" else {}  # on MPS, older versions of PyTorch take no argument
    return partial(module.get_rng_state, **which), partial(module.set_rng_state, **which)


@contextmanager
def _own_noise(seed, device):
    """Seed the random generators for a device; at the end, restore their states."""
    states = random_state(device)
    set_random_state(device, [torch.Generator(kind).manual_seed(seed).get_state() for kind in ("cpu", device)])
    try:
        yield
    finally:
        set_random_state(device, states)
