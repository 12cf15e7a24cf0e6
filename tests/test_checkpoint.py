"""Checkpoints: a run that goes on from one ends bit for bit like one that never stopped; what is broken is refused."""

import errno
import os
import pickle
import zipfile

import pytest
import torch

from vae_tutorial.checkpoint import load_checkpoint, save_checkpoint
from vae_tutorial.data import Loader
from vae_tutorial.loss import vae_loss
from vae_tutorial.model import VAE, Decoder, Encoder
from vae_tutorial.train import fit, random_state

SETTINGS = {"epochs": 4, "lr": 0.01, "dataset": "noise"}
HELD_OUT = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


class Run:
    """All that a checkpoint holds, built anew from the seed."""

    def __init__(self, latent_dim=3):
        torch.manual_seed(0)
        self.model = VAE(Encoder(1, 2, latent_dim), Decoder(1, 2, latent_dim))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=SETTINGS["lr"])
        images = torch.rand(10, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.loader = Loader(images, torch.zeros(10), batch_size=4)
        self.history = {"train": [], "held_out": []}

    def fit(self, after_epoch=None, **options):
        options = dict(optimizer=self.optimizer, epochs=4, history=self.history, after_epoch=after_epoch) | options
        fit(self.model, self.loader, HELD_OUT, **options)
        return self

    def save(self, path, settings=SETTINGS):
        noise = [random_state(torch.device("cpu"))]
        save_checkpoint(path, self.model, self.optimizer, self.loader, self.history, settings, noise)

    def load(self, path, settings=SETTINGS):
        self.history = load_checkpoint(path, self.model, self.optimizer, self.loader, settings)
        return self

    def tensors(self):
        moments = [state[key] for state in self.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq", "step")]
        return [*self.model.state_dict().values(), *moments, self.loader.generator.get_state(), torch.get_rng_state()]


@pytest.fixture(autouse=True)
def uncapped(monkeypatch):
    monkeypatch.delenv("VAE_TUTORIAL_EPOCHS", raising=False)


@pytest.fixture
def path(tmp_path):
    """The path of a checkpoint of a run that has made two of its four epochs."""
    path = tmp_path / "checkpoint.pt"
    stop_after(2, path)
    return path


def stop_after(epochs, path, **options):
    run = Run()

    def save(epoch):
        run.save(path)
        if epoch == epochs:
            raise KeyboardInterrupt

    return run.fit(save, **options)


def refused(path, *pieces, settings=SETTINGS, run=None):
    with pytest.raises(ValueError) as error:
        (run or Run()).load(path, settings)
    for piece in (str(path), *pieces):
        assert piece in str(error.value)


@pytest.mark.parametrize("one_cycle", [True, False])
@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_run_that_goes_on_ends_bit_for_bit_like_one_that_never_stopped(epochs, one_cycle, tmp_path):
    whole = Run().fit(one_cycle=one_cycle)
    wanted, history = whole.tensors(), whole.history
    stop_after(epochs, tmp_path / "c.pt", one_cycle=one_cycle)
    torch.manual_seed(99)
    resumed = Run().load(tmp_path / "c.pt").fit(one_cycle=one_cycle)
    assert all(map(torch.equal, resumed.tensors(), wanted)) and resumed.history == history
    assert len(history["held_out"]) == 4


def test_an_interrupted_epoch_is_made_again_from_its_beginning(tmp_path):
    whole = Run().fit().tensors()
    run, steps = Run(), iter(range(7))

    def loss_fn(recon, x, mu, logvar):
        if torch.is_grad_enabled() and next(steps, None) is None:
            raise KeyboardInterrupt  # in the second step of the third epoch, which has three
        return vae_loss(recon, x, mu, logvar)

    run.fit(lambda epoch: run.save(tmp_path / "c.pt"), loss_fn=loss_fn)
    assert len(run.history["held_out"]) == 2
    resumed = Run().load(tmp_path / "c.pt")
    assert len(resumed.history["held_out"]) == 2
    assert all(map(torch.equal, resumed.fit().tensors(), whole))


def test_a_finished_run_is_left_as_it_is(tmp_path):
    run = Run()
    run.fit(lambda epoch: run.save(tmp_path / "c.pt"))
    wanted = run.tensors()
    resumed = Run().load(tmp_path / "c.pt").fit(lambda epoch: pytest.fail("trained"))
    assert all(map(torch.equal, resumed.tensors(), wanted))


def test_the_learning_rate_is_the_peak_again_for_the_schedule_to_start_from(path):
    assert Run().load(path).optimizer.param_groups[0]["lr"] == SETTINGS["lr"]


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(share, path):
    os.truncate(path, int(share * path.stat().st_size))
    refused(path, "is broken, or is no checkpoint", "delete it and start anew")


@pytest.mark.parametrize("where", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_is_found_or_does_no_harm(where, path):
    wanted = Run().load(path).tensors()
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    try:
        assert all(map(torch.equal, Run().load(path).tensors(), wanted))  # in the zip file's padding
    except ValueError as error:
        assert "is broken, or is no checkpoint" in str(error)


def test_a_flipped_bit_in_a_weight_is_found(path):
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 200] ^= 1
    path.write_bytes(content)
    refused(path, "fails its checksum", "delete it and start anew")


class Hostile:
    """What runs code when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_file_is_refused_and_does_not_run(write, tmp_path):
    write({"model": Hostile(tmp_path / "trace")}, tmp_path / "c.pt")
    refused(tmp_path / "c.pt", "is broken, or is no checkpoint")
    assert not (tmp_path / "trace").exists()


@pytest.mark.filterwarnings("error")  # PyTorch warns of a tensor that is indexed with a word
@pytest.mark.parametrize("key", ["settings", "model", "optimizer", "order", "noise", "history"])
@pytest.mark.parametrize("value", [None, "words", 7, [], {}, {"other": 1}, torch.zeros(3)])
def test_a_file_with_something_else_in_it_is_refused(key, value, path):
    state = torch.load(path, weights_only=True)
    torch.save({**state, key: value}, path)
    refused(path, "is no checkpoint of such a run", "choose another folder")


@pytest.mark.parametrize(
    "history", [{"train": [["a"]], "held_out": [[1]]}, {"train": [[1, 1, 1]], "held_out": []}, {"train": [1]}]
)
def test_a_history_that_cannot_be_is_refused(history, path):
    torch.save({**torch.load(path, weights_only=True), "history": history}, path)
    refused(path, "is no checkpoint of such a run", "choose another folder")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("state", [[], 3, {}, torch.zeros(2)])
def test_a_file_that_holds_no_state_is_refused(state, tmp_path):
    torch.save(state, tmp_path / "c.pt")
    refused(tmp_path / "c.pt", "is no checkpoint of such a run")


def test_a_network_of_another_size_is_refused(path):
    refused(path, "is no checkpoint of such a run", "size mismatch", run=Run(latent_dim=4))


@pytest.mark.parametrize("changed", [{"epochs": 5}, {"lr": 0.02}, {"dataset": "mnist"}])
def test_other_settings_are_refused_by_name(changed, path):
    ((name, value),) = changed.items()
    words = f"a run with {name} = {SETTINGS[name]}, but {name} is {value}", "give the same settings"
    refused(path, *words, settings=SETTINGS | changed)


@pytest.mark.parametrize("process", [-1, 1, 0.0, None])
def test_a_process_that_did_not_write_it_is_refused(process, path):
    run, words = Run(), "process must be a whole number from 0 to 0, of the 1 processes that wrote "
    with pytest.raises(ValueError, match=rf"^{words}.*checkpoint.pt, but is {process}\.$"):
        load_checkpoint(path, run.model, run.optimizer, run.loader, SETTINGS, process)


def test_a_loader_whose_order_is_not_drawn_is_refused(tmp_path):
    run = Run()
    run.loader.generator = None
    with pytest.raises(TypeError, match="^loader must be one with a generator, as Loader with a seed"):
        run.save(tmp_path / "c.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [None, [], {"lr": None}, {"lr": torch.tensor(1.0)}, {1: 2}])
def test_settings_that_a_file_could_not_give_back_are_refused(settings, tmp_path):
    with pytest.raises(TypeError, match="^settings must be {name: number or word}, but is "):
        Run().save(tmp_path / "c.pt", settings)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint .*c.pt: start a run"):
        Run().load(tmp_path / "c.pt")


@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize("stands", [True, False])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written(fails, stands, tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    if stands:
        stop_after(1, path)
    before = path.read_bytes() if stands else None

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match=r"c\.pt cannot be written \(.*No space left.*\): make room, or choose"):
        Run().fit().save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"] * stands
    assert not stands or path.read_bytes() == before


def test_ctrl_c_while_writing_leaves_the_old_checkpoint_and_nothing_half_written(path, monkeypatch):
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Run().save(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_disk_that_is_really_full_is_an_error_of_one_sentence(tmp_path):
    os.symlink("/dev/full", tmp_path / "c.pt.unfinished")
    with pytest.raises(OSError, match="cannot be written .*No space left"):
        Run().save(tmp_path / "c.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere.*cannot be written .*No such file"):
        Run().save(tmp_path / "nowhere" / "c.pt")


@pytest.mark.parametrize("path", ["a\0b", *(["\ud800"] if os.name == "posix" else [])])
def test_a_path_that_no_system_takes_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="^.{1,3} cannot be written"):
        Run().save(path)
    refused(path, "is broken, or is no checkpoint")


def test_a_path_may_hold_spaces_and_umlauts(tmp_path):
    (tmp_path / "mein Lauf für zwei").mkdir()
    stop_after(1, tmp_path / "mein Lauf für zwei" / "größe.pt")
    assert len(Run().load(tmp_path / "mein Lauf für zwei" / "größe.pt").history["held_out"]) == 1
