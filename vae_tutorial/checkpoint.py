"""Checkpoints of a training run: written whole or not at all, read without running anything that is in them."""

import io
import os
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from vae_tutorial.train import device_of, epochs_in, require, require_optimizer, set_random_state


def save_checkpoint(path, model, optimizer, loader, history, settings, noise):
    """Write all that a run needs to go on after its last epoch as if it had never stopped.

    loader: whose generator gives the order of the images; history: as vae_tutorial.train.fit keeps it;
    settings: {name: number or word}, which a run that goes on must share; noise: random_state of every process.
    A file that stands at path is replaced at once and whole: whoever is killed meanwhile leaves the old one.
    Raises OSError when the folder cannot be written, TypeError for an argument of another kind; the old file stays.
    """
    _require_run(path, model, optimizer, loader, settings)
    processes = isinstance(noise, list) and noise and all(isinstance(states, list) and states for states in noise)
    require(processes and all(map(torch.is_tensor, sum(noise, []))), "noise", "[random_state(device), ...]", noise)
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "order": loader.generator.get_state(),
        "noise": noise,
        "history": _plain(history),
    }
    buffer = io.BytesIO()  # so that a full disk is an OSError, which torch.save would hide
    torch.save(state, buffer)
    replace_file(path, buffer.getvalue())


def load_checkpoint(path, model, optimizer, loader, settings, process=0):
    """Bring model, optimizer, loader and the generators to where a checkpoint left them; return its history.

    All of them are built as for the run that wrote it, with the same settings; process is the number of this one.
    Raises ValueError for other settings and for a file that is broken or holds anything but tensors and plain values,
    FileNotFoundError when there is none, TypeError for an argument of another kind.
    """
    _require_run(path, model, optimizer, loader, settings)
    state = _read(path)
    with _refused(path):
        _require_contents(state)
        other = {name: state["settings"][name] for name, value in settings.items() if state["settings"][name] != value}
    for name, value in other.items():
        raise ValueError(
            f"{path} was written by a run with {name} = {value}, but {name} is {settings[name]}: "
            f"give the same settings, or start another run in another folder."
        )
    count = len(state["noise"])
    if type(process) is not int or not 0 <= process < count:
        wanted = f"a whole number from 0 to {count - 1}, of the {count} processes that wrote {path}"
        raise ValueError(f"process must be {wanted}, but is {process!r:.60}.")
    with _refused(path):
        history = _plain(state["history"])
        rates = [group["lr"] for group in optimizer.param_groups]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # the peak, not where the schedule was: fit takes the schedule up from the history
        loader.generator.set_state(state["order"])
        set_random_state(device_of(model), state["noise"][process])
    return history


def replace_file(path, content):
    """Write bytes to a file beside path and move it there, so that path never holds a part of them."""
    unfinished = Path(f"{path}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, ValueError) as error:  # ValueError: a path that no system takes
        raise OSError(f"{path} cannot be written ({_one_line(error)}): make room, or choose another folder.") from None
    finally:
        with suppress(OSError, ValueError):
            unfinished.unlink()


def _require_run(path, model, optimizer, loader, settings):
    """Raise TypeError unless these are a path, what a run trains with, and settings that a file can hold."""
    require(isinstance(path, str | os.PathLike), "path", "a str or a Path", path)
    device_of(model)
    require_optimizer(optimizer)
    ordered = isinstance(getattr(loader, "generator", None), torch.Generator)
    require(ordered, "loader", "one with a generator, as Loader with a seed", loader)
    plain = isinstance(settings, dict) and {type(value) for value in settings.values()} <= {str, int, float, bool}
    require(plain and all(isinstance(name, str) for name in settings), "settings", "{name: number or word}", settings)


def _require_contents(state):
    """Raise TypeError unless what a file holds has the names and kinds of what save_checkpoint writes."""
    kinds = dict(settings=dict, model=dict, optimizer=dict, order=torch.Tensor, noise=list, history=dict)
    require(isinstance(state, dict), "its content", "a dict", state)
    for name, kind in kinds.items():
        require(isinstance(state[name], kind), name, f"a {kind.__name__}", state[name])
    require(len(state["noise"]) > 0, "noise", "of one process or more", state["noise"])


def _plain(history):
    """Return a history with rows of three floats; raise TypeError or ValueError where it has others."""
    epochs_in(history)
    try:
        rows = {part: [(float(a), float(b), float(c)) for a, b, c in history[part]] for part in ("train", "held_out")}
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"history must have rows of three numbers, but is {history!r:.60}.") from error
    return rows


_REMEDY = "delete it and start anew, or choose another folder."


def _read(path):
    try:
        with zipfile.ZipFile(path) as file:  # torch.load does not hold its content against the checksums in it
            if (broken := file.testzip()) is not None:
                raise ValueError(f"{broken} fails its checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no checkpoint {path}: start a run before going on with it.") from None
    except PermissionError as error:
        raise OSError(f"{path} cannot be read ({_one_line(error)}): change its rights.") from None
    except Exception as error:  # a hostile or broken file may raise anything
        raise ValueError(f"{path} is broken, or is no checkpoint ({_one_line(error)[:200]}): {_REMEDY}") from None
    return state


@contextmanager
def _refused(path):
    """Turn whatever a file with other contents raises into a ValueError that names the file."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of such a run ({_one_line(error)}): {_REMEDY}") from None


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())
