"""python -m vae_tutorial: what a run writes, what it refuses, and that it outlives being stopped and killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch
from effort import effort
from PIL import Image
from test_data import needs_real_mnist

from vae_tutorial import __main__ as program
from vae_tutorial.data import DATASETS

# a run of the real program on forty random images
SMALL = """
import sys, torch
from vae_tutorial import __main__ as program
from vae_tutorial.data import Images

def small(name):
    images = torch.rand(50, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Images(images[:40], torch.zeros(40), images[40:], torch.zeros(10))

program.load_images = small
"""
RUN_SMALL = SMALL + "sys.exit(program.main())"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    names = {"__name__": "small"}
    exec(SMALL.replace("program.load_images = small", ""), names)
    monkeypatch.setattr(program, "load_images", names["small"])
    for name in ("VAE_TUTORIAL_EPOCHS", "VAE_TUTORIAL_DATASET", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def run(folder, *options, epochs=2):
    arguments = ["--folder", folder, "--epochs", epochs, "--batch-size", 20, "--device", "cpu", *options]
    return program.main([str(argument) for argument in arguments])


def weights(folder):
    return list(torch.load(folder / "checkpoint.pt", weights_only=True)["model"].values())


def same(folder, other):
    return all(map(torch.equal, weights(folder), weights(other)))


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def refused(capsys, *pieces):
    words = capsys.readouterr().err
    for piece in ("python -m vae_tutorial: ", *pieces):
        assert piece in words
    assert "Traceback" not in words


def test_a_run_leaves_a_checkpoint_its_history_and_pictures(tmp_path, capsys):
    assert run(tmp_path / "run") == 0
    assert names(tmp_path / "run") == ["checkpoint.pt", "history.csv", "pictures.png"]
    assert Image.open(tmp_path / "run" / "pictures.png").size[0] == 20 * 34 + 2
    rows = [row.split(",") for row in (tmp_path / "run" / "history.csv").read_text().splitlines()]
    assert rows[0] == ["epoch", "part", "loss", "recon_loss", "kl_loss"]
    assert [row[:2] for row in rows[1:]] == [[e, part] for part in ("train", "held_out") for e in ("1", "2")]
    assert "after epoch 2, held-out: total " in capsys.readouterr().out


def test_the_settings_that_are_not_given_are_those_of_notebook_01():
    notebook = nbformat.read(Path(__file__).parent.parent / "notebooks" / "solutions" / "01_vae.ipynb", as_version=4)
    cell, wanted = next(cell for cell in notebook.cells if cell.id == "settings"), {"torch": torch}
    exec(cell.source, wanted)
    options = program.parse([])
    given = dict(batch_size=options.batch_size, epochs=options.epochs, lr=options.lr, betas=program.BETAS)
    assert wanted["settings"] == {**given, "one_cycle": True}
    assert (wanted["width"], wanted["latent_dim"]) == (program.WIDTH, program.LATENT_DIM)


def test_the_seed_fixes_the_weights_and_another_gives_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, "--seed", seed)
    assert same(tmp_path / "a", tmp_path / "b") and not same(tmp_path / "a", tmp_path / "c")


def test_a_run_is_never_overwritten(tmp_path, capsys):
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert run(tmp_path, "--seed", 1) == 1
    refused(capsys, "checkpoint.pt is there already", "--resume", "another --folder")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_other_settings_are_no_continuation(tmp_path, capsys):
    run(tmp_path)
    assert run(tmp_path, "--resume", "--lr", 0.1) == 1
    refused(capsys, "a run with lr = 0.004, but lr is 0.1", "give the same settings")


def test_resume_begins_anew_where_there_is_nothing_yet(tmp_path):
    assert run(tmp_path / "new", "--resume") == 0 and run(tmp_path / "plain") == 0
    assert same(tmp_path / "new", tmp_path / "plain")


def test_ctrl_c_says_how_to_go_on_and_going_on_ends_like_a_whole_run(tmp_path, capsys, monkeypatch):
    run(tmp_path / "whole", epochs=3)
    write, once = program._write_history, iter(["stop"])

    def stop(path, history):
        write(path, history)
        if len(history["held_out"]) == 1 and next(once, None):
            raise KeyboardInterrupt

    monkeypatch.setattr(program, "_write_history", stop)
    assert run(tmp_path / "run", epochs=3) == 130
    assert "stopped after 1 of 3 epochs: the same command with --resume goes on" in capsys.readouterr().out
    monkeypatch.setattr(program, "_write_history", write)
    assert run(tmp_path / "run", "--resume", epochs=3) == 0
    assert same(tmp_path / "run", tmp_path / "whole")
    assert (tmp_path / "run" / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()


def test_a_broken_checkpoint_is_refused_and_left_where_it_is(tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes(b"broken")
    assert run(tmp_path, "--resume") == 1
    refused(capsys, "checkpoint.pt is broken, or is no checkpoint", "delete it and start anew")
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"broken"


@pytest.mark.parametrize(
    ("option", "value", "piece"),
    [
        ("--epochs", 0, "epochs must be a whole number of at least 1, but is 0"),
        ("--batch-size", 0, "batch_size must be"),
        ("--lr", 1e12, "The loss is "),
        ("--device", "abacus", "--device abacus cannot be used"),
        ("--device", "cuda:99", "--device cuda:99 cannot be used"),
        ("--device", "meta", "--device meta cannot be used"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_a_sentence(option, value, piece, tmp_path, capsys):
    assert run(tmp_path, option, value) == 1
    refused(capsys, piece)


def test_an_output_without_the_blocks_of_the_bar_shows_another_bar(tmp_path):
    code, environment = RUN_SMALL, os.environ | {"PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-c", code, "--folder", str(tmp_path), "--epochs", "1", "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="cp1252", check=True)
    assert "100% |####################|" in done.stdout


def test_an_unknown_data_set_is_refused_with_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--dataset", "emnist")
    words = capsys.readouterr().err
    assert all(name in words for name in DATASETS)


def test_a_data_set_that_is_not_there_leaves_nothing(tmp_path, capsys, monkeypatch):
    def missing(name):
        raise FileNotFoundError("The data set mnist is on none of")

    monkeypatch.setattr(program, "load_images", missing)
    assert run(tmp_path / "run") == 1
    refused(capsys, "The data set mnist is on none of")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_an_error_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert run(tmp_path / "file" / "run") == 1
    refused(capsys, "file")


def test_the_variable_caps_the_epochs(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", "1")
    run(tmp_path, epochs=5)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3


# the peak of this process alone: what getrusage tells begins with that of the process that started it
MEASURE = """
import re, sys
from vae_tutorial import __main__ as program

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 2**20

before = peak()
status = program.main(sys.argv[1:])
print("beyond the imports:", peak() - before)
sys.exit(status)
"""


@needs_real_mnist
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells the peak of a process this way")
def test_all_of_mnist_needs_less_than_1_5_gib_beyond_the_imports(tmp_path):
    options = ["--dataset", "mnist", "--device", "cpu", "--epochs", "1", "--batch-size", "256", "--folder", tmp_path]
    done = subprocess.run([sys.executable, "-c", MEASURE, *options], capture_output=True, text=True, check=True)
    beyond = float(done.stdout.split("beyond the imports:")[1])
    assert 0.1 < beyond < 1.5


def start(folder, *options):
    """Start a run of fifteen epochs in a process of its own, with one thread, as all runs that are compared."""
    command = [sys.executable, "-c", RUN_SMALL, "--folder", str(folder), "--epochs", "15", "--batch-size", "4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--device", "cpu", *options], env=environment, stdout=subprocess.DEVNULL)


def wait_for_an_epoch(process, path):
    """Wait until the checkpoint was written anew twice, or the process has ended; return the seconds between."""
    times = []
    for _ in range(2):
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.001)
        times.append(time.monotonic())
    return times[1] - times[0]


def test_a_run_killed_at_any_moment_ends_bit_for_bit_like_one_never_killed(tmp_path):
    whole, often, kills = tmp_path / "whole", tmp_path / "often", effort(3, 20)
    assert start(whole).wait() == 0
    moments = random.Random(0)
    for trial in range(kills):
        folder = often / str(trial // 3)  # a run of its own for every three kills, so that none ends before
        process = start(folder, "--resume")
        interval = wait_for_an_epoch(process, folder / "checkpoint.pt")
        time.sleep(moments.uniform(0, interval))
        assert process.poll() is None, "the run ended before it was killed: make it longer"
        process.kill()
        assert process.wait() == -signal.SIGKILL if os.name == "posix" else process.wait()
    for folder in sorted(often.iterdir()):
        assert start(folder, "--resume").wait() == 0
        assert same(folder, whole) and names(folder) == names(whole)
        assert (folder / "history.csv").read_text() == (whole / "history.csv").read_text()
