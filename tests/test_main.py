"""python -m vae_tutorial: what a run writes and refuses, its checkpoints, and that it outlives stops and kills."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch
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
    for name in ("VAE_TUTORIAL_EPOCHS", "VAE_TUTORIAL_DATASET"):
        monkeypatch.delenv(name, raising=False)


def run(folder, *options, epochs=1):
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
    assert run(tmp_path / "run", epochs=2) == 0
    assert names(tmp_path / "run") == ["checkpoint.pt", "history.csv", "pictures.png"]
    assert Image.open(tmp_path / "run" / "pictures.png").size[0] == 20 * 34 + 2
    rows = [row.split(",") for row in (tmp_path / "run" / "history.csv").read_text().splitlines()]
    assert rows[0] == ["epoch", "part", "loss", "recon_loss", "kl_loss"]
    assert [row[:2] for row in rows[1:]] == [[e, part] for part in ("train", "test") for e in ("1", "2")]
    words = capsys.readouterr().out
    assert "test total " in words and "after epoch 2, test images: total " in words


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


# what a person types


@pytest.mark.parametrize(
    ("option", "value", "piece"),
    [
        ("--lr", -1, "-1.0"),
        ("--lr", "nan", "nan"),
        ("--lr", 1e12, "The loss is "),
        ("--device", "abacus", "--device abacus cannot be used"),
        ("--device", "cuda:99", "--device cuda:99 cannot be used"),
        ("--device", "meta", "--device meta cannot be used"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_a_sentence(option, value, piece, tmp_path, capsys):
    assert run(tmp_path, option, value) == 1
    refused(capsys, piece)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--epochs", value) for value in (0, -1, 1.5, "many", "")],
        *[("--batch-size", value) for value in (0, -4, 1.5)],
        *[("--seed", value) for value in (1.5, "x", -1, 2**80)],
        ("--lr", "fast"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_the_name_of_its_option(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", option, value)
    assert stop.value.code == 2 and not (tmp_path / "run").exists()
    refused(capsys, option, str(value))


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


def test_a_folder_may_have_spaces_and_umlauts(tmp_path):
    assert run(tmp_path / "mein Lauf für zwei") == run(tmp_path / "mein Lauf für zwei", "--resume") == 0


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two"])
def test_a_cap_that_is_no_number_is_refused_by_the_name_of_the_variable(value, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", value)
    assert run(tmp_path) == 1
    refused(capsys, f"VAE_TUTORIAL_EPOCHS must be a whole number of at least 1, but is '{value}'")


def test_the_variable_caps_the_epochs(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", "1")
    run(tmp_path, epochs=5)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3


# checkpoints: what is in them


def test_a_run_is_never_overwritten(tmp_path, capsys):
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert run(tmp_path, "--seed", 1) == 1
    refused(capsys, "checkpoint.pt is there already", "--resume", "another --folder")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("option", [["--lr", "0.1"], ["--seed", "1"], ["--batch-size", "10"], ["--epochs", "5"]])
def test_other_settings_are_refused_by_name(option, tmp_path, capsys):
    run(tmp_path)
    assert run(tmp_path, "--resume", *option) == 1
    name = option[0].strip("-").replace("-", "_")
    refused(capsys, "checkpoint.pt cannot be resumed", f"a run with {name} = ", f"but {name} is {option[1]}")


def test_resume_begins_anew_where_there_is_nothing_yet(tmp_path):
    assert run(tmp_path / "new", "--resume") == 0 and run(tmp_path / "plain") == 0
    assert same(tmp_path / "new", tmp_path / "plain")


@pytest.mark.parametrize("done", [0, 1, 3])
def test_ctrl_c_says_how_to_continue_and_a_resumed_run_ends_like_a_whole_one(done, tmp_path, capsys, monkeypatch):
    run(tmp_path / "whole", epochs=4)
    write = program.write_history

    def stop(path, history):
        write(path, history)
        if len(history["test"]) == done:
            monkeypatch.setattr(program, "write_history", write)
            raise KeyboardInterrupt

    monkeypatch.setattr(program, "write_history", stop)
    assert run(tmp_path / "run", epochs=4) == 130
    assert f"stopped after {done} of 4 epochs: the same command with --resume continues" in capsys.readouterr().out
    torch.manual_seed(99)
    assert run(tmp_path / "run", "--resume", epochs=4) == 0
    assert same(tmp_path / "run", tmp_path / "whole")
    assert (tmp_path / "run" / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()


def test_a_finished_run_is_left_as_it_is(tmp_path):
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert run(tmp_path, "--resume") == 0
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


# checkpoints: broken and hostile ones


@pytest.fixture
def path(tmp_path):
    run(tmp_path)
    return tmp_path / "checkpoint.pt"


def resume_is_refused(path, capsys, *pieces):
    before = path.read_bytes()
    capsys.readouterr()
    assert run(path.parent, "--resume") == 1
    refused(capsys, "checkpoint.pt cannot be resumed", "choose another --folder", *pieces)
    assert path.read_bytes() == before


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(share, path, capsys):
    os.truncate(path, int(share * path.stat().st_size))
    resume_is_refused(path, capsys, "BadZipFile")


def test_a_flipped_bit_in_a_weight_is_found(path, capsys):
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 200] ^= 1
    path.write_bytes(content)
    resume_is_refused(path, capsys, "a checksum is wrong")


class Hostile:
    """What runs code when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_file_is_refused_and_does_not_run(write, tmp_path, capsys):
    write({"model": Hostile(tmp_path / "trace")}, tmp_path / "checkpoint.pt")
    resume_is_refused(tmp_path / "checkpoint.pt", capsys)
    assert not (tmp_path / "trace").exists()


@pytest.mark.filterwarnings("error")  # PyTorch warns of a tensor that is indexed with a word
@pytest.mark.parametrize("key", ["settings", "model", "optimizer", "order", "random_states", "history"])
@pytest.mark.parametrize("value", [None, "words", [], {"other": 1}, torch.zeros(3)], ids=str)
def test_a_file_with_something_else_in_it_is_refused(key, value, path, capsys):
    torch.save({**torch.load(path, weights_only=True), key: value}, path)
    resume_is_refused(path, capsys)


@pytest.mark.parametrize(
    "history", [{"train": [[1, 1, 1]], "test": []}, {"train": [["a"]], "test": [[1]]}, {"train": [], "held_out": []}]
)
def test_a_history_that_cannot_be_is_refused(history, path, capsys):
    torch.save({**torch.load(path, weights_only=True), "history": history}, path)
    resume_is_refused(path, capsys)


@pytest.mark.parametrize("state", [[], 3, {}, torch.zeros(2)], ids=str)
def test_a_file_that_holds_no_state_is_refused(state, tmp_path, capsys):
    torch.save(state, tmp_path / "checkpoint.pt")
    resume_is_refused(tmp_path / "checkpoint.pt", capsys)


# checkpoints: writing


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_half_written(error, path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OSError):
        program.save_checkpoint(path, {"model": torch.zeros(3)})
    assert path.read_bytes() == before and names(path.parent) == ["checkpoint.pt", "history.csv", "pictures.png"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_disk_that_is_full_is_an_error_of_one_sentence(tmp_path, capsys):
    os.symlink("/dev/full", tmp_path / "checkpoint.pt.unfinished")
    assert run(tmp_path) == 1
    refused(capsys, "checkpoint.pt cannot be written (OSError: [Errno 28] No space left on device): make room")
    assert names(tmp_path) == []


# whole processes


@pytest.mark.slow
def test_an_output_without_the_blocks_of_the_bar_shows_another_bar(tmp_path):
    code, environment = RUN_SMALL, os.environ | {"PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-c", code, "--folder", str(tmp_path), "--epochs", "1", "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="cp1252", check=True)
    assert "100% |####################|" in done.stdout


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_bit_for_bit_like_one_never_killed(tmp_path):
    whole, often, kills = tmp_path / "whole", tmp_path / "often", 6
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
