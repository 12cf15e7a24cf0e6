"""One run on several processes: each takes its shard of every batch, and all take the same step.

torchrun starts the processes and numbers them; DistributedDataParallel averages their gradients, and gives all the
BatchNorm statistics of process 0. Only what differs from a run on one process is here.
"""

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vae_tutorial import speed
from vae_tutorial.train import train_step

LOST = "the run was stopped, or another process of it ended: the same command with --resume goes on"


def rank_and_world_size():
    """Return the number of this process and how many there are; (0, 1) without torchrun."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined(device):
    """Let the processes find each other, by gloo between CPUs and nccl between CUDA devices, and part at the end.

    Raises ValueError for another device, ConnectionError when another process is lost.
    """
    backends = {"cpu": "gloo", "cuda": "nccl" if dist.is_nccl_available() else "gloo"}  # Windows has no nccl
    if device.type not in backends:
        raise ValueError(f"Several processes run on cpu or cuda, but the device is {device}: give --device cpu.")
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


class Shard:
    """Iterate over a Loader's batches; of each give this process its shard, every world_size-th image from rank on.

    A batch that world_size does not divide loses its last images, so that all shards weigh the same.
    """

    def __init__(self, loader, rank, world_size):
        self.loader, self.rank, self.world_size = loader, rank, world_size

    def __len__(self):
        full, rest = divmod(len(self.loader.images), self.loader.batch_size)
        return full * (self.loader.batch_size >= self.world_size) + (rest >= self.world_size)

    def __iter__(self):
        for images, labels in self.loader:
            even = len(images) // self.world_size * self.world_size
            if even:
                yield images[self.rank : even : self.world_size], labels[self.rank : even : self.world_size]


def shared_step(model, x, optimizer, loss_fn):
    """Take train_step on this process's shard; return the parts of the loss as means over all processes.

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
