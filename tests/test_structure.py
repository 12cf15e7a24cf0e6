"""Who imports whom inside the package, read from its files, held against the rule that no piece reaches for another."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import vae_tutorial

PACKAGE = Path(vae_tutorial.__file__).parent
NEEDED = {"", "model", "loss", "data", "train", "latent"}  # "" is the package itself
ALLOWED = {
    **dict.fromkeys(["", "model", "loss", "data", "latent", "plots", "exercises", "speed"], set()),
    "train": {"loss", "speed"},
    "checkpoint": {"train"},
    "parallel": {"train", "speed"},
    "checks": {"checks", "model", "loss", "train", "latent"},
    "__main__": {"model", "loss", "data", "train", "latent", "plots", "exercises", "checks", "checkpoint", "parallel"},
}


def read_graph(package):
    """Return {module: the modules of the package that it imports}, named from inside the package."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        *folders, stem = path.relative_to(package).with_suffix("").parts
        modules[".".join(folders if stem == "__init__" else [*folders, stem])] = path
    if not modules:
        raise FileNotFoundError(f"{package} holds no module")
    return {name: _own(path, package, modules) for name, path in modules.items()}


def _own(path, package, modules):
    folder = [package.name, *path.parent.relative_to(package).parts]
    targets = {t for node in ast.walk(ast.parse(path.read_text("utf-8"))) for t in _targets(node, folder)}
    return {_module(t.split(".")[1:], modules) for t in targets if t.split(".")[0] == package.name}


def _targets(node, folder):
    """Return the full names that a node imports; a relative import is read from the folder it stands in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = folder[: len(folder) + 1 - node.level] if node.level else []
        return [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
    return []


def _module(parts, modules):
    """Return the module that holds the name: of loss.vae_loss it is loss."""
    return next(".".join(parts[:n]) for n in range(len(parts), -1, -1) if ".".join(parts[:n]) in modules)


def wrong_imports(graph):
    pairs = {(name, target) for name, targets in graph.items() for target in targets}
    return {(name, target) for name, target in pairs if target.split(".")[0] not in ALLOWED[name.split(".")[0]]}


def fake_package(folder, **sources):
    package = folder / "vae_tutorial"
    (package / "checks").mkdir(parents=True)
    for name in ("__init__", "loss", "train", "checks/__init__", "checks/vae"):
        (package / f"{name}.py").write_text(sources.get(name.replace("/", "_"), ""))
    return package


def test_every_module_has_its_place_in_the_rule():
    names = {name.split(".")[0] for name in read_graph(PACKAGE)}
    assert names >= NEEDED and names <= set(ALLOWED)


def test_modules_import_only_what_the_rule_allows():
    graph = read_graph(PACKAGE)
    assert "loss" in graph["train"]
    assert wrong_imports(graph) == set()


def test_no_imports_go_in_a_circle():
    graph = read_graph(PACKAGE)
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert sorted(order) == sorted(graph)


def test_nothing_imports_a_notebook_or_a_test():
    trees = [ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")]
    tops = {target.split(".")[0] for tree in trees for node in ast.walk(tree) for target in _targets(node, [])}
    assert "torch" in tops
    assert [top for top in tops if top in ("tests", "notebooks", "conftest") or top.startswith("test_")] == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("import vae_tutorial.loss", "loss"),
        ("import os, vae_tutorial.loss as l", "loss"),
        ("from vae_tutorial import loss", "loss"),
        ("from vae_tutorial.loss import vae_loss", "loss"),
        ("from vae_tutorial.loss import *", "loss"),
        ("from . import loss", "loss"),
        ("from .loss import vae_loss", "loss"),
        ("from .checks.vae import probe", "checks.vae"),
        ("from vae_tutorial.checks import vae", "checks.vae"),
        ("from vae_tutorial.checks import check", "checks"),
        ("import vae_tutorial", ""),
        ("from vae_tutorial import __doc__", ""),
        ("def f():\n    if True:\n        from .loss import vae_loss", "loss"),
    ],
)
def test_an_import_is_seen_in_every_form(source, target, tmp_path):
    graph = read_graph(fake_package(tmp_path, train=source))
    assert graph["train"] == {target}


@pytest.mark.parametrize("source", ["from ..loss import vae_loss", "from .. import loss"])
def test_a_relative_import_is_read_from_its_own_folder(source, tmp_path):
    graph = read_graph(fake_package(tmp_path, checks_vae=source, checks___init__=source))
    assert graph["checks.vae"] == graph["checks"] == {"loss"}


@pytest.mark.parametrize("source", ["import torch.loss", "from torch import loss", "x = 'import vae_tutorial.loss'"])
def test_what_is_not_the_packages_is_not_counted(source, tmp_path):
    assert read_graph(fake_package(tmp_path, train=source))["train"] == set()


def test_an_import_against_the_rule_is_found(tmp_path):
    package = fake_package(tmp_path, loss="def f():\n    from . import train", train="from .loss import f")
    assert wrong_imports(read_graph(package)) == {("loss", "train")}


def test_a_circle_is_found(tmp_path):
    package = fake_package(
        tmp_path, checks_vae="from . import check", checks___init__="def f():\n    from . import vae"
    )
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(read_graph(package)).prepare()


def test_a_folder_without_a_module_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no module"):
        read_graph(tmp_path)


@pytest.mark.parametrize("name", ["vae_tutorial", "vae_tutorial.exercises"])
def test_importing_it_does_not_import_torch(name):
    if name != "vae_tutorial" and not (PACKAGE / "exercises.py").exists():
        pytest.skip("there is no exercises.py")
    program = (
        f"import sys, {name}; print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'vae_tutorial')))"
    )
    result = subprocess.run([sys.executable, "-B", "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert (result.stdout.strip(), result.returncode) == (str(sorted({"vae_tutorial", name})), 0), result.stderr
