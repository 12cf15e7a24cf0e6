"""Who imports whom inside the package, read from its files: no piece reaches for one that stands above it."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import vae_tutorial

PACKAGE = Path(vae_tutorial.__file__).parent
MAY_IMPORT = {
    **dict.fromkeys(["model", "loss", "data", "plots", "speed", "authoring"], set()),
    "latent": {"model"},
    "metrics": {"model", "loss", "latent"},
    "train": {"model", "loss", "speed"},
    "__main__": {"model", "loss", "data", "latent", "train", "speed"},
    "checks": {"checks", "model", "loss", "latent", "metrics", "train"},
}


def imports_of(path):
    """Name everything that a file imports, in full: vae_tutorial.loss.vae_loss."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names)


def room(path):
    """The module of the package, or the folder in it, to which a file belongs."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
GRAPH = {room(path): set() for path in FILES}
for file in FILES:
    GRAPH[room(file)] |= {name.split(".")[1] for name in imports_of(file) if name.startswith("vae_tutorial.")}


def test_every_module_imports_only_what_stands_below_it():
    assert "loss" in GRAPH["train"]
    assert {name: targets - MAY_IMPORT[name] for name, targets in GRAPH.items()} == dict.fromkeys(MAY_IMPORT, set())


def test_no_imports_go_in_a_circle():
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {}
    for name, path in modules.items():
        own = [target.removeprefix("vae_tutorial.") for target in imports_of(path)]
        graph[name] = {m for m in modules for target in own if target == m or target.rpartition(".")[0] == m}
    assert sorted(graphlib.TopologicalSorter(graph).static_order()) == sorted(modules)


def test_nothing_imports_a_notebook_or_a_test_or_by_a_relative_path():
    tops = {name.split(".")[0] for path in FILES for name in imports_of(path)}
    assert "torch" in tops and not tops & {"", "tests", "notebooks", "conftest"}


@pytest.mark.parametrize("name", ["vae_tutorial", "vae_tutorial.authoring.exercises"])
def test_importing_it_does_not_import_torch(name):
    program = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=PACKAGE.parent).returncode == 0


def test_every_file_says_in_its_first_line_what_it_is():
    for path in FILES:
        first = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
        assert first[0].isupper() and first[-1] in ".:", path
