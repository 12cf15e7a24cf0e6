"""Several processes, held against one that goes through the same shards; and what a process that dies leaves."""

import copy
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_main import SMALL, names, weights
from torch.nn.parallel import DistributedDataParallel

from vae_tutorial import __main__ as program
from vae_tutorial import speed
from vae_tutorial.data import Loader
from vae_tutorial.loss import vae_loss
from vae_tutorial.model import VAE, Decoder, Encoder
from vae_tutorial.train import evaluate

STEPS = 4


def build():
    torch.manual_seed(0)
    model = VAE(Encoder(1, 4, 8), Decoder(1, 4, 8))
    # not Adam: it makes steps of one size of gradients that are 0 but for rounding, those of a bias before BatchNorm
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def load():
    images = torch.rand(8 * STEPS, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Loader(images, torch.arange(len(images)), batch_size=8)


def tensors(model):
    gradients = {f"{name}.grad": weight.grad for name, weight in model.named_parameters()}
    return {name: value.detach().clone() for name, value in {**model.state_dict(), **gradients}.items()}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def one_of_two(rank, port, folder):
    """Train on one of two processes; write what the model and the loss are after every step."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    model, optimizer = build()
    torch.manual_seed(10 + rank)
    rows = []
    program.RANK, program.WORLD_SIZE = rank, 2
    program.join(torch.device("cpu"))
    speed.prepare(model)
    shared = DistributedDataParallel(model).train()
    for x, _ in program.Shard(load()):
        parts = program.shared_step(shared, x, optimizer, vae_loss)
        rows.append((parts, tensors(model)))
    assert program.gather(rank) == [0, 1]
    assert evaluate(shared, load().images) == evaluate(model, load().images)
    torch.save(rows, f"{folder}/{rank}.pt")


def shard(loader, rank, world_size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "RANK", rank)
        patch.setattr(program, "WORLD_SIZE", world_size)
        rows = list(program.Shard(loader))
        assert len(program.Shard(loader)) == len(rows)
        return rows


def both_on_one():
    """Go through the same shards one after the other; return the same rows."""
    model, optimizer = build()
    model.train()
    shards = [shard(load(), rank, 2) for rank in range(2)]
    noise = [torch.Generator().manual_seed(10 + rank).get_state() for rank in range(2)]
    rows = []
    for (x0, _), (x1, _) in zip(*shards, strict=True):
        other = copy.deepcopy(model)  # with the weights and BatchNorm statistics of the first
        results = []
        for rank, (net, x) in enumerate([(model, x0), (other, x1)]):
            torch.set_rng_state(noise[rank])
            recon, mu, logvar = net(x)
            noise[rank] = torch.get_rng_state()
            results.append(vae_loss(recon, x, mu, logvar))
        optimizer.zero_grad()
        other.zero_grad()
        results[0][0].backward()
        results[1][0].backward()
        for weight, twin in zip(model.parameters(), other.parameters(), strict=True):
            weight.grad = (weight.grad + twin.grad) / 2
        optimizer.step()
        rows.append((tuple((a + b).item() / 2 for a, b in zip(*results, strict=True)), tensors(model)))
    return rows


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Run two processes; return the rows of each."""
    folder = tmp_path_factory.mktemp("two")
    port = free_port()
    work = torch.multiprocessing.get_context("spawn")
    processes = [work.Process(target=one_of_two, args=(rank, port, folder), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_the_same_shards_and_noise(two):
    wanted = both_on_one()
    assert len(two[0]) == len(wanted) == STEPS
    for (parts, state), (wanted_parts, wanted_state) in zip(two[0], wanted, strict=True):
        assert parts == pytest.approx(wanted_parts, abs=1e-5)
        for name, value in wanted_state.items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_both_processes_have_the_same_loss_gradients_and_weights(two):
    for (parts, state), (other_parts, other_state) in zip(*two, strict=True):
        assert parts == other_parts
        shared = [name for name in state if "running" not in name]  # which process 0 hands on in the next step
        assert len(shared) > 40 and all(torch.equal(state[name], other_state[name]) for name in shared)


@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 7))
def test_shards_together_are_the_batches(images, batches, world_size):
    def loader():
        return Loader(10 * torch.arange(images)[:, None].float(), torch.arange(images), batches * world_size, seed=None)

    even = [[part[: len(part) // world_size * world_size] for part in batch] for batch in loader()]
    wanted = [batch for batch in even if len(batch[0])]
    got = [shard(loader(), rank, world_size) for rank in range(world_size)]
    assert [len(rows) for rows in got] == [len(wanted)] * world_size
    for whole, *pieces in zip(wanted, *got, strict=True):
        for part, *shares in zip(whole, *pieces, strict=True):
            assert torch.equal(torch.stack(shares, dim=1).flatten(0, 1), part)  # one image of each in turn


@pytest.fixture(autouse=True, scope="module")
def uncapped():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VAE_TUTORIAL_EPOCHS", raising=False)
        yield


def torchrun(folder, code="", *options):
    """Run the program on forty images in two processes; return its exit status and what it printed."""
    script = folder / "small.py"
    script.write_text(f"{SMALL}\n{code}\nif __name__ == '__main__':\n    sys.exit(program.main())\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    settings = ["--folder", str(folder / "run"), "--epochs", "3", "--batch-size", "20", "--device", "cpu", *options]
    # Windows' PyTorch has no libuv
    environment = os.environ | {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0" if os.name == "nt" else "1"}
    done = subprocess.run([*command, *settings], capture_output=True, text=True, env=environment, timeout=300)
    return done.returncode, done.stdout + done.stderr


# one of the processes sends a signal, to itself or to torchrun, and waits for what comes of it
KILL = """
import os, signal, time
step, count = program.shared_step, iter(range(100))

def kill_in_the_fourth_step(*args):
    if program.RANK == WHICH and next(count) == 3:
        os.kill(os.WHOM(), signal.HOW)
        time.sleep(300)
    return step(*args)

program.shared_step = kill_in_the_fourth_step
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process by a signal that Windows lacks")
@pytest.mark.parametrize(
    "rank, whom, how",
    [("0", "getpid", "SIGKILL"), ("1", "getpid", "SIGKILL"), ("0", "getppid", "SIGTERM")],
    ids=["the first process", "the second process", "torchrun"],
)
def test_a_killed_process_ends_the_run_with_a_sentence_and_resume_goes_on(whole, tmp_path, rank, whom, how):
    status, words = torchrun(tmp_path, KILL.replace("WHICH", rank).replace("WHOM", whom).replace("HOW", how))
    assert status != 0 and f"python -m vae_tutorial: {program.LOST}" in words
    status, words = torchrun(tmp_path, "", "--resume")
    assert status == 0 and words.count("after epoch 3, test images") == 1
    assert words.count("epoch 2/3") > 0 and "epoch 1/3" not in words
    for got, want in zip(weights(tmp_path / "run"), weights(whole[0] / "run"), strict=True):
        torch.testing.assert_close(got, want)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody stopped, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    status, words = torchrun(folder)
    assert status == 0, words
    return folder, words


@pytest.mark.slow
def test_progress_and_files_come_from_the_first_process_alone(whole):
    tmp_path, words = whole
    bars = re.findall(r"^ +0% \|", words, re.MULTILINE)  # drawn once, before the epoch is named
    assert len(bars) == words.count("written to") == 1
    assert "UserWarning" not in words  # DistributedDataParallel warns when weights and gradients differ in layout
    assert names(tmp_path / "run") == ["checkpoint.pt", "history.csv", "pictures.png"]
    assert len(torch.load(tmp_path / "run" / "checkpoint.pt")["random_states"]) == 2


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_evenly_is_refused(tmp_path):
    status, words = torchrun(tmp_path, "", "--batch-size", "21")
    assert status != 0 and "--batch-size is 21: it must be a multiple of the 2 processes" in words


@pytest.mark.parametrize("name", ["DistBackendError", "DistNetworkError", "DistStoreError"])
def test_a_lost_process_is_told_in_a_sentence(monkeypatch, capsys, name):
    def lose(*_):
        raise getattr(torch.distributed, name)("no answer")

    monkeypatch.setattr(program, "train", lose)
    assert program.main([]) == 1
    assert f"python -m vae_tutorial: {program.LOST}" in capsys.readouterr().err


def test_an_error_that_is_not_expected_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(program, "train", lambda options: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        program.main([])


def test_a_device_that_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(program, "WORLD_SIZE", 2)
    with pytest.raises(ValueError, match="--device meta cannot be used .*several processes run on cpu or cuda"):
        program.choose_device("meta")


def test_a_rank_without_other_processes_is_the_first():
    program = "from vae_tutorial import __main__ as program; print(program.RANK, program.WORLD_SIZE)"
    environment = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"} | {"RANK": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0 1\n"
