"""How pytest runs the notebooks, cell by cell through nbval: solutions in full, exercises with few epochs."""

import os

import pytest

# where other programs run too, two threads wait for each other most of the time
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Set what the notebook's kernel, started in this step, takes from the environment; then put it back."""
    with pytest.MonkeyPatch.context() as patch:
        if item.path.parent.name == "exercises" and not os.environ.get("VAE_TUTORIAL_EPOCHS"):
            patch.setenv("VAE_TUTORIAL_EPOCHS", "2")
        return (yield)
