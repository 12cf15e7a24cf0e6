"""How pytest runs the notebooks, cell by cell through nbval: quickly, or with -m slow the solutions in full."""

import os

import pytest

# where other programs run too, two threads wait for each other most of the time
os.environ.setdefault("OMP_NUM_THREADS", "1")

# what a quick run has less of, beside epochs: {notebook: (text of a cell, its replacement)}
LESS = {"04_how_good": ("[:1000]  # for what takes long", "[:50]")}


def in_full(config):
    return config.option.markexpr == "slow"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        if in_full(config) and item.path.parent.name == "solutions":
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Set what the notebook's kernel, started in this step, takes from the environment; then put it back."""
    with pytest.MonkeyPatch.context() as patch:
        if not in_full(item.config):
            patch.setenv("VAE_TUTORIAL_EPOCHS", os.environ.get("VAE_TUTORIAL_EPOCHS") or "1")
            if item.path.stem in LESS:
                item.cell.source = item.cell.source.replace(*LESS[item.path.stem])
        return (yield)
