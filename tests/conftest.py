"""What all tests share: one thread, and how many examples hypothesis tries."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# where other programs run too, two threads wait for each other most of the time
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start
torch.set_num_threads(1)  # in this one

os.environ.setdefault("no_proxy", "127.0.0.1,localhost")  # servers of the tests

torch.backends.cudnn.allow_tf32 = False  # on a graphics card, results are held against those of a CPU

settings.register_profile(
    "tests",
    max_examples=50,
    derandomize=True,  # the same examples in every run
    deadline=None,  # a timed test is a test of the machine
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def open_exercises_pass(monkeypatch):
    """The tests say themselves when an open exercise is to fail."""
    monkeypatch.delenv("VAE_TUTORIAL_STRICT", raising=False)
