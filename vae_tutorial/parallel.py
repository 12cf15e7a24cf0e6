"""One run on several processes: each takes its part of every batch, and all take the same step.

torchrun starts the processes and numbers them; DistributedDataParallel averages their gradients, and gives all the
BatchNorm statistics of process 0. Only what differs from a run on one process is here.
"""

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vae_tutorial import speed
from vae_tutorial.train import require, train_step

LOST = "the run was stopped, or another process of it ended: the same command with --resume goes on"


def place():
    """Return (rank, count): the number of this process and how many there are; (0, 1) without torchrun."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined(device):
    """Let the processes find each other, by gloo between CPUs and nccl between CUDA devices, and part at the end.

    Raises ValueError for another device, ConnectionError when another process is lost.
    """
    backends = {"cpu": "gloo", "cuda": "nccl" if dist.is_nccl_available() else "gloo"}  # Windows has no nccl
    if not isinstance(device, torch.device) or device.type not in backends:
        raise ValueError(f"Several processes run on cpu or cuda, but the device is {device!s:.60}: give --device cpu.")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        backend = backends[device.type]
        dist.init_process_group(backend, device_id=device if backend == "nccl" else None)
        yield
        dist.barrier()  # whoever parts alone may wait for ever; for the same reason, none parts after an error
        dist.destroy_process_group()
    except RuntimeError as error:
        # gloo raises a plain RuntimeError, which begins with the path of its source
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ConnectionError(LOST) from error
        raise


def share(model):
    """Wrap a model so that backward() averages the gradients over the processes."""
    speed.prepare(model)  # before it is wrapped: the gradients' buffers take the weights' order in memory
    return DistributedDataParallel(model)


class Part:
    """Iterate over a loader's batches; of each give this process its part, every count-th image from rank on.

    A batch that count does not divide loses its last images, so that all parts weigh the same.
    Raises TypeError for another loader than vae_tutorial.data's, ValueError unless 0 <= rank < count.
    """

    def __init__(self, loader, rank, count):
        sized = hasattr(loader, "images") and hasattr(loader, "batch_size")
        require(sized, "loader", "a Loader, with images and a batch_size", loader)
        if not (type(rank) is type(count) is int and 0 <= rank < count):
            given = f"{rank!r:.60} and {count!r:.60}"
            raise ValueError(f"rank and count must be whole numbers, 0 <= rank < count, but are {given}.")
        self.loader, self.rank, self.count = loader, rank, count

    def __len__(self):
        full, rest = divmod(len(self.loader.images), self.loader.batch_size)
        return full * (self.loader.batch_size >= self.count) + (rest >= self.count)

    def __iter__(self):
        for images, labels in self.loader:
            even = len(images) // self.count * self.count
            if even:
                yield images[self.rank : even : self.count], labels[self.rank : even : self.count]


def shared_step(model, x, optimizer, loss_fn):
    """Take train_step on this process's part; return the parts of the loss as means over all processes.

    So all see a loss that is no longer finite at the same step, and stop together.
    """
    parts = torch.tensor(train_step(model, x, optimizer, loss_fn), device=x.device)
    dist.all_reduce(parts)
    return tuple((parts / dist.get_world_size()).tolist())


def collect(value):
    """Return the values of all processes, in their order, on every process."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
