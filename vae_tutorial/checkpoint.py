"""Checkpoints of a training run: written whole or not at all, read without running anything that is in them."""

import io
import os
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from vae_tutorial.train import set_random_state


def save_checkpoint(path, model, optimizer, loader, history, settings, random_states):
    """Write all that a run needs to go on after its last epoch as if it had never stopped.

    loader: a Loader with a seed; history: as fit keeps it; settings: {name: number or word}, which the run that
    resumes must share; random_states: train.random_state of every process.
    A file at path is replaced at once and whole. A process that is killed meanwhile leaves the old one.
    Raises OSError when the folder cannot be written; the old file stays.
    """
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "order": loader.generator.get_state(),
        "random_states": random_states,
        "history": history,
    }
    buffer = io.BytesIO()  # so that a full disk is an OSError, which torch.save would hide
    torch.save(state, buffer)
    replace_file(path, buffer.getvalue())


def load_checkpoint(path, model, optimizer, loader, settings, rank=0):
    """Bring model, optimizer, loader and the generators to where a checkpoint left them; return its history.

    Build them as the run that wrote it did, with the same settings; rank is the number of this process.
    Raises ValueError for other settings and for a file that is broken or holds anything but tensors and plain values,
    FileNotFoundError when there is none.
    """
    state = _read(path)
    with _refused(path):
        other = {name: state["settings"][name] for name, value in settings.items() if state["settings"][name] != value}
    for name, value in other.items():
        raise ValueError(
            f"{path} was written by a run with {name} = {value}, but {name} is {settings[name]}: "
            f"give the same settings, or start another run in another folder."
        )
    with _refused(path):
        history = _plain(state["history"])
        rates = [group["lr"] for group in optimizer.param_groups]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # the peak, not where the schedule was: fit takes the schedule up from the history
        loader.generator.set_state(state["order"])
        set_random_state(next(model.parameters()).device, state["random_states"][rank])
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


def _plain(history):
    """Return the history that a file holds, with rows of three floats."""
    return {part: [(float(a), float(b), float(c)) for a, b, c in history[part]] for part in ("train", "test")}


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
