"""Training, side by side on this machine: the original notebook's loop, this package's fit, and what others write.

    python tests/benchmarks/train.py              about 5 minutes on two cores
    python tests/benchmarks/train.py --reproduce  the original's 10 epochs in full, about 6

Needs MNIST (VAE_TUTORIAL_DATA, or it is downloaded); Lightning takes part where it is installed. All train the network
of notebook 01 with its loss. What is compared is run in turn, round after round, so that a machine that slows down
slows all of them; the ratio is taken within each round.
"""

import argparse
import datetime
import importlib.util
import os
import platform
import statistics
import time
from functools import partial

import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from vae_tutorial.data import Loader, load_images
from vae_tutorial.loss import vae_loss
from vae_tutorial.model import VAE, Decoder, Encoder
from vae_tutorial.train import evaluate, fit

DEVICE = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
IMAGES, TEST_LOSS = 60_000, 0.0547  # the original's loss on the test images after 10 epochs: see --reproduce
ORIGINAL = dict(batch_size=64, lr=1e-4, betas=(0.5, 0.999), epochs=10)
FAST = dict(images=41_000, batch_size=96, lr=2.2e-2, betas=(0.8, 0.98), epochs=2)  # README.md: what was tried
BATCHES = 200  # so many of an epoch's 938 are timed of the loops that are not ours


def build(lr, betas, fused=None, seed=0, **_):
    """Return the network of notebook 01 and its optimizer."""
    torch.manual_seed(seed)
    model = VAE(Encoder(1, 16, 128), Decoder(1, 16, 128)).to(DEVICE)
    return model, torch.optim.Adam(model.parameters(), lr=lr, betas=betas, fused=fused)


def plain_step(model, optimizer, x):
    recon, mu, logvar = model(x)
    loss = vae_loss(recon, x, mu, logvar)[0]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def original_loader():
    """Return the original's loader: every image is resized by PIL whenever it is shown, by four workers."""
    steps = [transforms.Resize(32), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    folder = os.environ.get("VAE_TUTORIAL_DATA", "data")
    digits = torchvision.datasets.MNIST(folder, train=True, transform=transforms.Compose(steps), download=True)
    return DataLoader(digits, ORIGINAL["batch_size"], shuffle=True, num_workers=4)


def time_loop(loader, step):
    """Return the seconds of an epoch: those until the first batch, and BATCHES steps extrapolated to all."""
    start = time.perf_counter()
    batches = iter(loader)
    step(next(batches)[0].to(DEVICE))
    first = time.perf_counter()
    for _ in range(BATCHES):
        step(next(batches)[0].to(DEVICE))
    return first - start + (time.perf_counter() - first) / BATCHES * (len(loader) - 1)


def contestants(data):
    """Return {name: a function that trains for one epoch and returns its seconds}."""

    def loop(loader):
        model, optimizer = build(**ORIGINAL)
        return lambda: time_loop(loader, lambda x: plain_step(model, optimizer, x))

    def ours(batch_size):
        model, optimizer = build(**FAST, fused=True)
        loader = Loader(data.train_images, data.train_labels, batch_size)
        start = time.perf_counter()
        fit(model, loader, data.test_images[:1], optimizer=optimizer, epochs=1)
        return time.perf_counter() - start

    tensors = TensorDataset(data.train_images.cpu(), data.train_labels.cpu())
    resized = DataLoader(tensors, ORIGINAL["batch_size"], shuffle=True)
    found = {
        "the original's loop, batch 64": loop(original_loader()),
        "DataLoader of resized tensors, batch 64": loop(resized),
    }
    if importlib.util.find_spec("lightning"):
        found["Lightning, the same loader"] = lambda: time_lightning(resized)
    return found | {f"vae_tutorial.train.fit, batch {size}": partial(ours, size) for size in (FAST["batch_size"], 256)}


def time_lightning(loader):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.vae, self.adam = build(**ORIGINAL)
            self.times = []

        def training_step(self, batch, _):
            if DEVICE.type != "cpu":
                torch.accelerator.synchronize()
            self.times.append(time.perf_counter())
            recon, mu, logvar = self.vae(batch[0])
            return vae_loss(recon, batch[0], mu, logvar)[0]

        def configure_optimizers(self):
            return self.adam

    module, quiet = Module(), ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    how = dict(max_epochs=1, limit_train_batches=BATCHES + 1, accelerator=DEVICE.type, devices=1)
    lightning.Trainer(**how, **dict.fromkeys(quiet, False)).fit(module, loader)
    return (module.times[-1] - module.times[0]) / BATCHES * len(loader)


def time_to_loss(seed):
    """Train from the files on disk to the end of FAST; return the seconds and the loss on the 10,000 test images.

    The clock stands still while the loss is measured, for this as for the original.
    """
    start = time.perf_counter()
    data = on_device(load_images("mnist"))
    model, optimizer = build(**FAST, fused=True, seed=seed)
    count = FAST["images"]
    loader = Loader(data.train_images[:count], data.train_labels[:count], FAST["batch_size"], seed)
    rise_and_fall(optimizer, FAST["epochs"] * len(loader))
    fit(model, loader, data.test_images[:1], optimizer=optimizer, epochs=FAST["epochs"], one_cycle=False)
    return time.perf_counter() - start, evaluate(model, data.test_images)[0]


def rise_and_fall(optimizer, steps):
    """Let the learning rate rise for a tenth of the steps and fall to 0, both in straight lines."""
    options = dict(pct_start=0.1, anneal_strategy="linear", cycle_momentum=False)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, FAST["lr"], steps + 1, **options)
    optimizer.register_step_post_hook(lambda *_: rate.step())


def on_device(data):
    return data._replace(train_images=data.train_images.to(DEVICE), train_labels=data.train_labels.to(DEVICE))


def floor():
    """Return the images a second of a machine that did the network's arithmetic at its rate for large matrices."""
    model, _ = build(**ORIGINAL)
    with FlopCounterMode(display=False) as counter:
        x = torch.zeros(64, 1, 32, 32, device=DEVICE)
        recon, mu, logvar = model(x)
        vae_loss(recon, x, mu, logvar)[0].backward()
    flops, n = counter.get_total_flops() / 64, 4096
    if DEVICE.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, in which convolutions are computed there
    a, seconds = torch.rand(n, n, device=DEVICE), []
    for _ in range(4):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    rate = 2 * n**3 / min(seconds)
    print(f"floor: {flops / 1e6:.1f} MFLOP an image, forward and backward, at {rate / 1e9:.0f} GFLOP/s")
    return rate / flops


def compare(rounds):
    """Run everything in turn, once to warm up and then round after round; print the tables."""
    data = on_device(load_images("mnist"))
    entrants = contestants(data)
    seconds, races = {name: [] for name in entrants}, []
    for number in range(rounds + 1):
        for name, run in entrants.items():
            taken = run()
            print(f"\nround {number}: {name}, an epoch in {taken:.1f} s", flush=True)
            if number:
                seconds[name].append(taken)
        if number:
            races.append(time_to_loss(seed=number))
    base = next(iter(seconds.values()))
    print_throughput(seconds, base, floor())
    print_race(races, [ORIGINAL["epochs"] * epoch for epoch in base])


def with_spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios(base, other):
    return with_spread([one / two for one, two in zip(base, other, strict=True)])


def print_throughput(seconds, base, ceiling):
    print(f"\n| an epoch of {IMAGES}, median of {len(base)} | seconds | images/s | throughput, as a ratio |")
    print("|---|---|---|---|")
    for name, taken in seconds.items():
        middle, note = statistics.median(taken), "" if "fit" in name else " *"
        print(f"| {name}{note} | {middle:.1f} | {IMAGES / middle:.0f} | {ratios(base, taken)} |")
    print(f"| the floor: the arithmetic alone | {IMAGES / ceiling:.1f} | {ceiling:.0f} | |")
    print(f"\n* {BATCHES} batches of each epoch, extrapolated to all")


def print_race(races, original):
    seconds, losses = zip(*races, strict=True)
    print("\n| from the files to the loss on the test images | seconds | loss | ratio |\n|---|---|---|---|")
    print(f"| the original, {ORIGINAL['epochs']} epochs * | {statistics.median(original):.0f} | {TEST_LOSS:.4f} | 1 |")
    print(f"| vae_tutorial, {FAST} | ", end="")
    print(f"{statistics.median(seconds):.1f} | {with_spread(losses, 4)} | {ratios(original, seconds)} |")


def reproduce():
    """Train as the original does, in full; print the loss after every epoch."""
    model, optimizer = build(**ORIGINAL)
    test_images, loader, start = load_images("mnist").test_images, original_loader(), time.perf_counter()
    for epoch in range(1, ORIGINAL["epochs"] + 1):
        for x, _ in loader:
            plain_step(model.train(), optimizer, x.to(DEVICE))
        total, mse, kl = evaluate(model, test_images)
        taken = time.perf_counter() - start
        print(f"epoch {epoch}, {taken:.0f} s: total {total:.4f}, reconstruction {mse:.4f}, KL {kl:.4f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reproduce", action="store_true", help="train the original in full instead")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    card = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {DEVICE} ({card}), ", end="")
    print(f"Python {platform.python_version()}, PyTorch {torch.__version__}, torchvision {torchvision.__version__}")
    if options.reproduce:
        return reproduce()
    compare(options.rounds)


if __name__ == "__main__":
    main()
