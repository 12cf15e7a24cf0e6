"""The solution notebooks on all of MNIST; a file of its own, so that it runs beside the tests of the notebooks."""

import os
from pathlib import Path

import pytest
from test_notebooks import every_solution, exercises_of, read, run, shown

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path(os.environ.get("VAE_TUTORIAL_DATA", "nowhere")) / "MNIST" / "raw").is_dir(),
        reason="MNIST is not in VAE_TUTORIAL_DATA",
    ),
]


@every_solution
def test_a_solution_runs_on_all_of_mnist(path, tmp_path):
    count = len(exercises_of(path))
    assert f"{count} of {count} exercises done" in shown(run(read(path), tmp_path, VAE_TUTORIAL_DATASET="mnist"))
