"""The notebooks: one truth with the package, and what nbval by itself would let pass."""

import ast
import base64
import copy
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from vae_tutorial.authoring.exercises import fold_code, make_exercise, strip_markers

ROOT = Path(__file__).parent.parent
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
TAUGHT = ["model", "loss", "train", "latent", "metrics"]
NO_NETWORK = """
import socket

def refuse(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError("the network is cut off")
    return connect(self, address, *rest)

connect, socket.socket.connect = socket.socket.connect, refuse
"""

every_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def text_of(cell):
    """What a cell shows, as plain text."""
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") or "\n".join(output.get("traceback", []))
        for output in cell.outputs
    )


def shown(notebook):
    return "\n".join(map(text_of, code_cells(notebook)))


def run(notebook, folder, **environment):
    """Execute a notebook in a folder without a network, with one epoch unless told otherwise."""
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {"VAE_TUTORIAL_EPOCHS": "1", "VAE_TUTORIAL_STRICT": "", "PYTHONPATH": str(folder), **environment}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env={**os.environ, **environment})
    return notebook


def nbval(notebook, folder, *options):
    """Run pytest with nbval over a notebook written to a folder; return its exit status and output."""
    nbformat.write(notebook, folder / "notebook.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-rN", "-c", os.devnull, "--rootdir", "."]
    command += ["-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", *options, "notebook.ipynb"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "VAE_TUTORIAL_EPOCHS": "1"}
    )
    return done.returncode, done.stdout


def up_to(notebook, text):
    """The notebook up to the first code cell that holds the text."""
    notebook = copy.deepcopy(notebook)
    index = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and text in cell.source)
    notebook.cells = notebook.cells[: index + 1]
    return notebook


def taught_definitions(notebook):
    """The marked functions and classes of a solution, markers removed: {name: text}."""
    found = {}
    for cell in code_cells(notebook):
        if "SOLUTION" in cell.source:
            text = strip_markers(cell.source)
            found |= {node.name: ast.get_source_segment(text, node) for node in ast.parse(text).body}
    return found


def finished_definitions(modules):
    found = {}
    for module in modules:
        text = Path(import_module(f"vae_tutorial.{module}").__file__).read_text(encoding="utf-8")
        nodes = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        found |= {node.name: ast.get_source_segment(text, node) for node in nodes}
    return found


def checks_of(path):
    """The name of the module with a notebook's checks: 01_vae has checks.vae."""
    return f"checks.{path.stem[3:]}"


def exercises_of(path):
    return import_module(f"vae_tutorial.{checks_of(path)}").check.exercises


def test_there_are_solutions_to_run():
    assert SOLUTIONS


@every_solution
def test_what_a_solution_teaches_is_what_the_package_holds(path):
    taught, finished = taught_definitions(read(path)), finished_definitions(TAUGHT)
    assert taught and {name: finished.get(name) for name in taught} == taught


@every_solution
def test_every_exercise_is_taught_and_has_blanks_where_its_check_looks(path):
    exercise = make_exercise(read(path), path.name)
    source = "\n".join(cell.source for cell in code_cells(exercise))
    for number, wanted in exercises_of(path).items():
        assert f'check("{number}"' in source
        assert all(has_blanks(source, lesson.finished, lesson.method) for lesson in wanted.lessons), number


def has_blanks(source, finished, method):
    node = next(n for n in ast.walk(ast.parse(source)) if getattr(n, "name", "") == finished.__name__)
    parts = [n for n in node.body if getattr(n, "name", "") == method] if method else [node]
    return any(isinstance(n, ast.Constant) and n.value is ... for part in parts for n in ast.walk(part))


@every_solution
def test_a_solution_was_run_top_to_bottom_and_its_outputs_are_stored(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    compared = [cell for cell in cells if "nbval-check-output" in tags(cell)]
    assert compared and all(cell.outputs for cell in compared)
    assert all(cell in compared for cell in cells if "check(" in cell.source or "summary()" in cell.source)


@every_solution
def test_a_solution_reached_the_end_with_every_check_done(path):
    checked = [cell for cell in code_cells(read(path)) if "= check(" in cell.source]
    lines = [line for cell in checked for line in text_of(cell).splitlines()]
    assert lines and all(" done: " in line for line in lines)


@every_solution
def test_every_picture_in_the_prose_is_one_of_data_and_travels_with_the_notebook(path):
    shown = 0
    for cell in read(path).cells:
        names = re.findall(r"!\[[^\]]+\]\(attachment:([^)]+)\)", cell.source)
        assert cell.cell_type == "code" or ("<img" not in cell.source and cell.source.count("![") == len(names))
        for name in names:
            (content,) = cell.attachments[name].values()
            assert base64.b64decode(content) == (ROOT / "data" / name).read_bytes()
        shown += len(names)
    assert shown


@every_solution
def test_code_cells_are_short_and_stand_between_prose(path):
    kinds = [cell.cell_type for cell in read(path).cells]
    assert not any(kinds[i : i + 3] == ["code"] * 3 for i in range(len(kinds)))
    assert all(len(line) <= 110 for cell in code_cells(read(path)) for line in strip_markers(cell.source).splitlines())


@pytest.mark.slow
@every_solution
def test_an_open_exercise_runs_anywhere_without_a_network_and_says_what_is_open(path, tmp_path):
    text = shown(run(make_exercise(read(path), path.name), tmp_path))
    for number, exercise in exercises_of(path).items():
        assert f"{number} open: still to fill: " in text
        assert f"{number} open: {exercise.title}\n" in text
    assert f"0 of {len(exercises_of(path))} exercises done" in text


@pytest.mark.slow
@every_solution
def test_a_student_who_copies_every_folded_solution_is_done(path, tmp_path):
    solution = read(path)
    robot = make_exercise(solution, path.name)
    for cell, check, fold in zip(robot.cells, robot.cells[1:], robot.cells[2:], strict=False):
        if cell.cell_type == check.cell_type == "code" and "= check(" in check.source:
            cell.source = fold_code(fold.source)
    assert [c.source for c in code_cells(robot)] == [strip_markers(c.source) for c in code_cells(solution)]
    count = len(exercises_of(path))
    assert f"{count} of {count} exercises done" in shown(run(robot, tmp_path))


@pytest.mark.slow
@every_solution
def test_strict_fails_at_the_first_open_exercise(path, tmp_path):
    exercise = up_to(make_exercise(read(path), path.name), "= check(")
    with pytest.raises(CellExecutionError, match=r"\d\.1 open: "):
        run(exercise, tmp_path, VAE_TUTORIAL_STRICT="1")


@pytest.mark.slow
def test_a_solution_that_is_wrong_makes_nbval_fail_and_say_why_once(tmp_path):
    notebook = up_to(read(SOLUTIONS[0]), '= check("1.1"')
    notebook.cells[-2].source = notebook.cells[-2].source.replace("-0.5 * (1 + logvar", "0.5 * (1 + logvar")
    status, output = nbval(notebook, tmp_path)
    assert status == 1 and output.count("1.1 wrong: The sign is wrong") == 1


@pytest.mark.slow
def test_an_output_that_changed_makes_nbval_fail(tmp_path):
    notebook = up_to(read(SOLUTIONS[0]), '= check("1.1"')
    assert nbval(notebook, tmp_path)[0] == 0
    notebook.cells[-1].outputs[0].data["text/plain"] = "another output"
    assert nbval(notebook, tmp_path)[0] == 1


@pytest.mark.slow
def test_a_kernel_that_dies_ends_the_run(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; os._exit(1)")])
    assert nbval(notebook, tmp_path, "--nbval-cell-timeout=10")[0] == 1
