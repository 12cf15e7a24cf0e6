"""Train a VAE without a notebook: python -m vae_tutorial, or torchrun --nproc-per-node 2 -m vae_tutorial.

The settings are those of notebook 01. A folder takes what comes of the run: checkpoint.pt and history.csv after every
epoch, pictures.png at the end. A run that was stopped or killed goes on with --resume.
"""

import argparse
import io
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torchvision.utils import make_grid, save_image

from vae_tutorial import parallel
from vae_tutorial.checkpoint import load_checkpoint, replace_file, save_checkpoint
from vae_tutorial.data import DATASETS, Loader, load_images
from vae_tutorial.latent import sample_prior
from vae_tutorial.model import VAE, Decoder, Encoder, eval_mode
from vae_tutorial.train import capped, fit, random_state

WIDTH, LATENT_DIM, BETAS = 16, 128, (0.5, 0.99)


def parse(arguments):
    """Return the options of a run; where one is wrong, argparse says so and exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m vae_tutorial", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=DATASETS, default=os.environ.get("VAE_TUTORIAL_DATASET") or "mnist-5k")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the graphics card, if there is one)")
    parser.add_argument("--epochs", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes together (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak of the one-cycle schedule (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("run"), help="for what comes of it (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder, if it has one")
    return parser.parse_args(arguments)


def train(options):
    """Train as the options say, on this process or on all that torchrun started; return the history.

    Raises ValueError for an option that cannot be, and when the folder holds a run that --resume does not go on with.
    """
    rank, count = parallel.rank_and_world_size()
    device = choose_device(options.device, count)
    if options.batch_size % count:
        raise ValueError(f"--batch-size is {options.batch_size}: it must be a multiple of the {count} processes.")
    path = options.folder / "checkpoint.pt"
    if path.exists() and not options.resume:
        raise ValueError(f"{path} is there already: go on with it by --resume, or choose another --folder.")
    if count > 1 and device.type == "cpu":
        # torchrun ends the others by this signal when it finds that one is gone; a process that waits for a graphics
        # card never comes to run a handler, so there the signal is left to end it
        signal.signal(signal.SIGTERM, _stop)
    with parallel.joined(device) if count > 1 else nullcontext():
        return _train(options, path, device, rank, count)


def choose_device(name, count=1):
    """Return the device of that name, else the accelerator, else the CPU; of several processes, this one's.

    Raises ValueError for a device that is unknown or not there.
    """
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    try:
        device = torch.device(name) if name else best
        if device.type == "cuda" and count > 1:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.ones(1, device=device).cpu()  # a device without memory, or too old for this PyTorch, fails here
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise ValueError(f"--device {name or best} cannot be used ({problem}): try {best}, or cpu.") from None
    return device


def _train(options, path, device, rank, count):
    data = load_images(options.dataset)
    options.folder.mkdir(parents=True, exist_ok=True)
    loader = Loader(data.train_images.to(device), data.train_labels.to(device), options.batch_size, options.seed)
    torch.manual_seed(options.seed)  # the same weights in every process
    model = VAE(Encoder(1, WIDTH, LATENT_DIM), Decoder(1, WIDTH, LATENT_DIM)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, betas=BETAS)
    torch.manual_seed(options.seed + rank)  # noise of its own in every process
    settings = {name: getattr(options, name) for name in ("dataset", "batch_size", "lr", "seed")}
    settings |= {"epochs": capped(options.epochs), "device": device.type, "processes": count}
    history = {"train": [], "test": []}
    if path.exists():
        history = load_checkpoint(path, model, optimizer, loader, settings, rank)

    def save(epoch):
        states = [random_state(device)] if count == 1 else parallel.collect(random_state(device))
        if rank == 0:
            save_checkpoint(path, model, optimizer, loader, history, settings, states)
            _write_history(options.folder / "history.csv", history)

    how = dict(optimizer=optimizer, epochs=options.epochs, after_epoch=save, history=history)
    if count == 1:
        fit(model, loader, data.test_images, **how)
    else:
        shard = parallel.Shard(loader, rank, count)
        fit(parallel.share(model), shard, data.test_images, train_step=parallel.shared_step, **how)
    if rank == 0:
        _write_history(options.folder / "history.csv", history)  # a run may be killed before it wrote its last line
        _draw(options.folder / "pictures.png", model, data.test_images)
        _tell(options, history, settings["epochs"])
    return history


def _write_history(path, history):
    rows = ["epoch,part,loss,recon_loss,kl_loss"]
    for part, epochs in history.items():
        rows += [f"{epoch},{part},{','.join(map(str, row))}" for epoch, row in enumerate(epochs, 1)]
    replace_file(path, ("\n".join(rows) + "\n").encode())


def _draw(path, model, images):
    """Write a picture: test images, their reconstructions below, and four rows of samples from the prior."""
    originals = images[:: max(1, len(images) // 20)][:20]
    with eval_mode(model), torch.no_grad():
        recon, _, _ = model(originals.to(next(model.parameters()).device))
    samples = sample_prior(model.decoder, 80, LATENT_DIM)
    grid = make_grid(torch.cat([originals, recon.cpu(), samples.cpu()]), nrow=20, pad_value=1)
    buffer = io.BytesIO()
    save_image(grid, buffer, "PNG", normalize=True, value_range=(-1, 1))
    replace_file(path, buffer.getvalue())


def _tell(options, history, epochs):
    done = len(history["test"])
    if done:
        total, recon_loss, kl_loss = history["test"][-1]
        print(f"after epoch {done}, test images: total {total:.4f}, reconstruction {recon_loss:.4f}, KL {kl_loss:.4f}")
    if done < epochs:
        print(f"stopped after {done} of {epochs} epochs: the same command with --resume goes on")
    print(f"written to {options.folder}: checkpoint.pt, history.csv, pictures.png")


def _stop(*_):
    sys.exit(f"\npython -m vae_tutorial: {parallel.LOST}")


def main(arguments=None):
    options = parse(arguments)
    try:
        history = train(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"\npython -m vae_tutorial: {error}", file=sys.stderr, flush=True)
        return 1
    return 0 if len(history["test"]) >= capped(options.epochs) else 130


if __name__ == "__main__":
    sys.exit(main())
