"""Train a VAE without a notebook: python -m vae_tutorial, or torchrun --nproc-per-node 2 -m vae_tutorial.

The settings are those of notebook 01. The folder gets checkpoint.pt and history.csv before training and after every
epoch, and pictures.png at the end. --resume continues a run that was stopped or killed. Under torchrun each process
takes its shard of every batch, DistributedDataParallel averages their gradients, and all take the same step.
"""

import argparse
import os
import signal
import sys
import zipfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torchvision.utils import make_grid, save_image

from vae_tutorial import speed
from vae_tutorial.data import DATASETS, Loader, load_images
from vae_tutorial.latent import sample_prior
from vae_tutorial.model import VAE, Decoder, Encoder, eval_mode
from vae_tutorial.train import capped, fit, random_state, set_random_state, train_step

WIDTH, LATENT_DIM, BETAS = 16, 128, (0.5, 0.99)
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))  # torchrun sets this and the next
RANK = int(os.environ["RANK"]) if WORLD_SIZE > 1 else 0
LOST = "the run was stopped, or another process of it ended: the same command with --resume continues it"


def at_least(least):
    """Return what turns the text of an option into a whole number; argparse shows its sentence for any other text."""

    def whole_number(text):
        if not (text.isdecimal() and least <= int(text) < 2**63):
            raise argparse.ArgumentTypeError(f"it must be a whole number of at least {least}, but is {text!r}")
        return int(text)

    return whole_number


def parse(arguments):
    """Return the options of a run. Where one is wrong, argparse says so and exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m vae_tutorial", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=DATASETS, default=os.environ.get("VAE_TUTORIAL_DATASET") or "mnist-5k")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the graphics card, if there is one)")
    parser.add_argument("--epochs", type=at_least(1), default=40, help="default: %(default)s")
    parser.add_argument("--batch-size", type=at_least(1), default=32, help="of all processes (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak of the one-cycle schedule (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("run"), help="for the results (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in the folder, if any")
    return parser.parse_args(arguments)


def choose_device(name):
    """Return the device of that name, else the accelerator, else the CPU; under torchrun this process's card."""
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    try:
        device = torch.device(name) if name else best
        if device.type == "cuda" and WORLD_SIZE > 1:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.type not in ("cpu", "cuda") and WORLD_SIZE > 1:
            raise RuntimeError("several processes run on cpu or cuda")
        torch.ones(1, device=device).cpu()  # a device that is missing, full, or too old for this PyTorch fails here
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise ValueError(f"--device {name or best} cannot be used ({problem}): try --device cpu.") from None
    return device


def train(options):
    """Train as the options say, in this process or in all that torchrun started; return the history."""
    device, path = choose_device(options.device), options.folder / "checkpoint.pt"
    if options.batch_size % WORLD_SIZE:
        raise ValueError(f"--batch-size is {options.batch_size}: it must be a multiple of the {WORLD_SIZE} processes.")
    if path.exists() and not options.resume:
        raise ValueError(f"{path} is there already: continue that run by --resume, or choose another --folder.")
    data = load_images(options.dataset)
    options.folder.mkdir(parents=True, exist_ok=True)
    loader = Loader(data.train_images.to(device), data.train_labels.to(device), options.batch_size, options.seed)
    torch.manual_seed(options.seed)  # the same weights in every process
    model = VAE(Encoder(1, WIDTH, LATENT_DIM), Decoder(1, WIDTH, LATENT_DIM)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, betas=BETAS)
    torch.manual_seed(options.seed + RANK)  # noise of its own in every process
    settings = {name: getattr(options, name) for name in ("dataset", "batch_size", "lr", "seed")}
    settings |= {"epochs": capped(options.epochs), "device": device.type, "processes": WORLD_SIZE}
    history = {"train": [], "test": []}
    if options.resume and path.exists():
        history = load_checkpoint(path, settings, model, optimizer, loader)

    def save(epoch):
        state = dict(settings=settings, model=model.state_dict(), optimizer=optimizer.state_dict(), history=history)
        state |= dict(order=loader.generator.get_state(), random_states=gather(random_state(device)))
        if RANK == 0:
            save_checkpoint(path, state)
            write_history(options.folder / "history.csv", history)

    how = dict(optimizer=optimizer, epochs=options.epochs, after_epoch=save, history=history)
    fit_together(model, loader, data.test_images, device, how)  # it fills history
    if RANK == 0:
        write_history(options.folder / "history.csv", history)  # a killed run may lack its last line
        draw(options.folder / "pictures.png", model, data.test_images)
        report(options.folder, history, settings["epochs"])
    return history


def fit_together(model, loader, test_images, device, how):
    """Call fit with the options of how, in this process alone or together with the others."""
    if WORLD_SIZE == 1:
        fit(model, loader, test_images, **how)
        return
    join(device)
    speed.prepare(model)  # before it is wrapped: the buffers of the gradients take the weights' order in memory
    fit(DistributedDataParallel(model), Shard(loader), test_images, train_step=shared_step, **how)
    dist.barrier()  # a process that leaves alone may wait for ever
    dist.destroy_process_group()


def join(device):
    """Let the processes find each other: gloo between CPUs, nccl between CUDA devices."""
    if device.type == "cpu":
        # torchrun ends the other processes by this signal; one that waits for a card would not come to run a handler
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"\npython -m vae_tutorial: {LOST}"))
    else:
        torch.cuda.set_device(device)
    nccl = device.type == "cuda" and dist.is_nccl_available()  # Windows has no nccl
    dist.init_process_group("nccl" if nccl else "gloo", device_id=device if nccl else None)


def gather(value):
    """Return the values of all processes, in the order of their ranks."""
    values = [value] * WORLD_SIZE
    if WORLD_SIZE > 1:
        dist.all_gather_object(values, value)
    return values


class Shard:
    """Iterate over a Loader's batches; of each take every WORLD_SIZE-th image, from RANK on.

    WORLD_SIZE divides the batch size. A smaller last batch may lose images, so that all shards have the same size.
    """

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        full, rest = divmod(len(self.loader.images), self.loader.batch_size)
        return full + (rest >= WORLD_SIZE)

    def __iter__(self):
        for images, labels in self.loader:
            if even := len(images) // WORLD_SIZE * WORLD_SIZE:
                yield images[RANK:even:WORLD_SIZE], labels[RANK:even:WORLD_SIZE]


def shared_step(model, x, optimizer, loss_fn):
    """Take train_step on this process's shard; return the parts of the loss as means over all processes.

    So all of them see at the same step that a loss is no longer finite, and stop together.
    """
    parts = torch.tensor(train_step(model, x, optimizer, loss_fn), device=x.device)
    dist.all_reduce(parts)
    return tuple((parts / WORLD_SIZE).tolist())


def save_checkpoint(path, state):
    """Write a checkpoint beside the old one and put it in its place. A process killed meanwhile leaves the old one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with open(unfinished, "wb") as file:  # to a file of Python's: then a full disk is an OSError with its name
            torch.save(state, file)
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({one_line(error)}): make room, or choose another --folder.") from None
    finally:
        unfinished.unlink(missing_ok=True)


def load_checkpoint(path, settings, model, optimizer, loader):
    """Bring model, optimizer, loader and generators to where a checkpoint left them; return its history.

    It restores the weights, BatchNorm's averages, Adam's moments, the order of the images and the random states. The
    place in the schedule follows from the history. Nothing in the file is run. Raises ValueError for a broken file and
    for one of a run with other settings.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        with zipfile.ZipFile(path) as file:  # torch.load does not look at the checksums in the file
            if file.testzip():
                raise ValueError("a checksum is wrong")
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        for name, value in settings.items():
            if (was := state["settings"][name]) != value:
                raise ValueError(f"it is of a run with {name} = {was}, but {name} is {value}")
        history = {part: [tuple(map(float, row)) for row in state["history"][part]] for part in ("train", "test")}
        if len(history["train"]) != len(history["test"]):
            raise ValueError("its history has two lengths")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.generator.set_state(state["order"])
        set_random_state(next(model.parameters()).device, state["random_states"][RANK])
    except Exception as error:  # a broken or hostile file may raise anything
        remedy = "give the settings of the run that wrote it; if the file is broken, choose another --folder."
        raise ValueError(f"{path} cannot be resumed ({one_line(error)[:200]}): {remedy}") from None
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate  # a checkpoint made before training holds the schedule's first rate, not its peak
    return history


def write_history(path, history):
    rows = ["epoch,part,loss,recon_loss,kl_loss"]
    for part, epochs in history.items():
        rows += [f"{epoch},{part},{','.join(map(str, row))}" for epoch, row in enumerate(epochs, 1)]
    path.write_text("\n".join(rows) + "\n")


def draw(path, model, images):
    """Write a picture: test images, their reconstructions below, and four rows of samples from the prior."""
    originals = images[:: max(1, len(images) // 20)][:20]
    with eval_mode(model), torch.no_grad():
        recon, _, _ = model(originals.to(next(model.parameters()).device))
    samples = sample_prior(model.decoder, 80, LATENT_DIM)
    grid = make_grid(torch.cat([originals, recon.cpu(), samples.cpu()]), nrow=20, pad_value=1)
    save_image(grid, path, normalize=True, value_range=(-1, 1))


def report(folder, history, epochs):
    done = len(history["test"])
    if done:
        total, recon_loss, kl_loss = history["test"][-1]
        print(f"after epoch {done}, test images: total {total:.4f}, reconstruction {recon_loss:.4f}, KL {kl_loss:.4f}")
    if done < epochs:
        print(f"stopped after {done} of {epochs} epochs: the same command with --resume continues")
    print(f"written to {folder}: checkpoint.pt, history.csv, pictures.png")


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def main(arguments=None):
    """Run the program; return its exit status: 0, 1 after an error in a sentence, 130 for a run that was stopped."""
    options = parse(arguments)
    try:
        history = train(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        lost = isinstance(error, dist.DistError) or "gloo" in str(error)  # gloo raises a plain RuntimeError
        if isinstance(error, RuntimeError) and not lost:
            raise
        print(f"\npython -m vae_tutorial: {LOST if lost else error}", file=sys.stderr, flush=True)
        return 1
    return 0 if len(history["test"]) >= capped(options.epochs) else 130


if __name__ == "__main__":
    sys.exit(main())
