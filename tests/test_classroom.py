"""What a class does to notebooks: runs them twice, out of order, trains again, and fills them wrongly in every way."""

import contextlib
import copy
import csv
import os
import random
import re
import subprocess

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from test_checks import EXERCISES, MISTAKES, ROWS, TABLES, changed, failure
from test_grades import read_table, run_submissions
from test_notebooks import ROOT, SOLUTIONS, code_cells, read, text_of, up_to
from test_readme import BIN

from vae_tutorial.authoring.exercises import fold_code, make_exercise, strip_markers
from vae_tutorial.checks import Check

PAGE = (ROOT / "notebooks" / "INSTRUCTORS.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"^\| (\d\.\d+) \| `(.+)` \| (.+) \|$", PAGE, re.MULTILINE)
STD = "torch.exp(0.5 * logvar)"
# answers that could keep a run from ending, or from getting to the next notebook
UNENDING = {
    "an endless loop that catches everything": f"{STD}\n    while True:\n        try: eps = 1\n        except: pass",
    "a question": "input('std?')",
    "an exit of the whole kernel": "__import__('os')._exit(0)",
    "an endless loop": f"{STD}\n    while True: pass",
    "a long sleep": "__import__('time').sleep(10000)",
    "a breakpoint": "breakpoint()",
    "an exit": "__import__('sys').exit()",
}


@contextlib.contextmanager
def kernel(folder):
    """Start a kernel that trains for one epoch; give a function that runs a cell in it and returns what it shows."""
    ran = nbformat.v4.new_notebook()
    client = NotebookClient(ran, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})

    def execute(cell):
        ran.cells.append(cell)
        client.execute_cell(cell, len(ran.cells) - 1)
        return text_of(cell)

    with client.setup_kernel(env={**os.environ, "VAE_TUTORIAL_EPOCHS": "1", "VAE_TUTORIAL_STRICT": ""}):
        yield execute


def without_times(text):
    """The text without times and white space, which depend on how fast a cell was and how its stream was cut."""
    return re.sub(r"\d+:\d+|\s", "", text)


def pictures(cell):
    return [output.data.get("image/png") for output in cell.outputs if "data" in output]


def cell_with(notebook, text):
    return next(cell for cell in code_cells(notebook) if text in cell.source)


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_notebook_run_twice_in_one_kernel_says_the_same_twice(path, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # bit for bit is a promise for CPUs
    with kernel(tmp_path) as execute:
        first, second = (
            [(without_times(execute(cell)), pictures(cell)) for cell in code_cells(read(path))] for _ in range(2)
        )
    assert first == second and any(text for text, _ in first)


@pytest.mark.slow
def test_training_again_after_the_results_trains_in_train_mode_and_goes_on_from_there(tmp_path):
    notebook = read(SOLUTIONS[0])
    before = code_cells(up_to(notebook, "history = fit("))
    result = cell_with(notebook, '"held-out": data.test_images')
    # what BatchNorm is told: evaluate, which fit calls, lets the model draw samples, but keeps BatchNorm in eval mode
    watch = nbformat.v4.new_code_cell(
        "modes = []\nmodel.eval()\n"
        "hook = model.encoder.bn1.register_forward_pre_hook(lambda layer, _: modes.append(layer.training))"
    )
    count = nbformat.v4.new_code_cell("hook.remove()\nprint(modes.count(True), len(train_loader))")
    with kernel(tmp_path) as execute:
        for cell in before:
            execute(cell)
        shown = [execute(cell) for cell in (result, watch, before[-1], count, result)]
    batches, wanted = shown[3].split()
    assert batches == wanted
    first, second = (float(re.search(r"held-out: total ([\d.]+)", shown[i])[1]) for i in (0, -1))
    assert first < 0.227  # the error of the average image
    assert second < 0.9 * first  # measured: 0.82 and 0.84; a training that begins anew ends near the first


@pytest.mark.slow
def test_cells_out_of_order_say_what_is_missing_or_end_right(tmp_path):
    notebook = make_exercise(read(SOLUTIONS[0]), "01_vae.ipynb")
    imports, check = cell_with(notebook, "import check"), cell_with(notebook, 'check("1.4"')
    open_cell = cell_with(notebook, "def reparameterize")
    filled, wrong = copy.deepcopy(open_cell), copy.deepcopy(open_cell)
    filled.source = fold_code(next(c.source for c in notebook.cells if "```python\ndef reparameterize" in c.source))
    wrong.source = filled.source.replace(STD, "torch.exp(logvar)")
    with kernel(tmp_path) as execute:
        with pytest.raises(CellExecutionError, match="name 'check' is not defined"):  # a kernel started anew
            execute(check)
        execute(imports)
        with pytest.raises(CellExecutionError, match="name 'reparameterize' is not defined"):
            execute(check)
        for definition, answer in [(filled, "done"), (open_cell, "open"), (filled, "done"), (filled, "done")]:
            execute(definition)
            assert all(execute(check).startswith(f"1.4 {answer}") for _ in range(2))
        execute(wrong)
        for _ in range(2):
            with pytest.raises(CellExecutionError, match="1.4 wrong: "):
                execute(check)
        execute(filled)
        assert execute(check).startswith("1.4 done")


def exercise_cells(path, number, change):
    """The cells of a notebook that an exercise's check needs, its own definition changed and the earlier ones right."""
    cells = code_cells(read(path))
    wanted = [cell_with(read(path), "import check").source]
    for definition, check in zip(cells, cells[1:], strict=False):
        numbers = re.findall(r'= check\("([\d.]+)"', check.source)
        source = strip_markers(definition.source)
        if number in numbers:
            return [*wanted, change(source), check.source]
        wanted += [source] * bool(numbers)


def hand_in(path, sources):
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources]), path)


def replaced(old, new):
    def change(source):
        assert old in source
        return source.replace(old, new)

    return change


@pytest.mark.slow
def test_a_wrong_answer_never_hangs_the_run_and_is_named_in_the_table(tmp_path):
    wanted = {}
    for table in TABLES:
        path = SOLUTIONS[0].parent / f"{names_of(table)}.ipynb"
        names = sorted(table.MISTAKES)
        for name in random.Random(path.stem).sample(names, 2):
            number, old, new, _ = table.MISTAKES[name]
            file = f"{path.stem} {len(wanted)}.ipynb"
            hand_in(tmp_path / "submissions" / file, exercise_cells(path, number, replaced(old, new)))
            wanted[file] = number, ("wrong", "crashed")
    for name, answer in UNENDING.items():
        hand_in(tmp_path / "submissions" / f"{name}.ipynb", exercise_cells(SOLUTIONS[0], "1.4", replaced(STD, answer)))
        wanted[f"{name}.ipynb"] = "1.4", ("crashed",)
    run_submissions(tmp_path, "--nbval-cell-timeout=60")
    rows = {row["notebook"]: row for row in csv.DictReader(read_table(tmp_path))}
    named = {file: rows[file][number] for file, (number, _) in wanted.items()}
    assert not {file: state for file, state in named.items() if state not in wanted[file][1]}
    assert rows.keys() == wanted.keys()
    # a kernel that dies as it starts is crashed too: most of the states must come from a check
    words = (tmp_path / "report.xml").read_text(encoding="utf-8")
    said = [f"{number} wrong: " in words or f"{number} crashed: " in words for number, _ in wanted.values()]
    assert sum(said) > 0.8 * len(said)


def names_of(table):
    """The notebook that a table of mistakes is about."""
    module = table.__name__.rpartition(".")[2]
    return next(path.stem for path in SOLUTIONS if path.stem.endswith(f"_{module}"))


@pytest.mark.parametrize("number, new, said", QUOTES)
def test_the_instructors_page_quotes_what_the_checks_say(number, new, said):
    olds = {row[1] for row in MISTAKES.values() if (row[0], row[2]) == (number, new)}
    olds |= {row[0] for where, _, row in ROWS if (where, row[1]) == (number, new)}
    assert olds
    for old in olds:
        assert f"{number} wrong: {said}" in failure(Check(EXERCISES), number, changed(number, old, new))


def test_the_instructors_page_has_three_mistakes_a_question_and_the_minutes_of_every_notebook():
    minutes = {number: str(exercise.minutes) for number, exercise in EXERCISES.items()}
    assert dict(re.findall(r"(\d\.\d+) \((\d+)\)", PAGE)) == minutes
    sections = re.findall(r"^## (0\d) [^:]+: (\d+) minutes(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert [number for number, _, _ in sections] == [path.stem[:2] for path in SOLUTIONS]
    assert len(QUOTES) == 3 * len(sections)
    for _, total, text in sections:
        rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
        needed = [sum(map(int, re.findall(r"\((\d+)\)", what))) for _, what in rows]
        assert all(int(given) >= least for (given, _), least in zip(rows, needed, strict=True))
        assert sum(int(given) for given, _ in rows) == int(total)
        assert text.count("**Ask:**") == 1 and len(re.findall(r"^\| \d\.\d+ \|", text, re.MULTILINE)) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the container has a shell of Unix")
def test_what_is_run_in_the_container_makes_the_table(tmp_path):
    (script,) = re.findall(r"sh -c '\n(.*?)' > grades.csv", PAGE, re.DOTALL)
    script = script.replace("/submissions", f"{tmp_path}/submissions")
    settings = dict(re.findall(r"-e (VAE_TUTORIAL_\w+)=(\w+)", PAGE))
    cells = ["def check(number, answer):\n    return answer", 'check("1.1", 1)']
    hand_in(tmp_path / "submissions" / "ann.ipynb", cells)
    (tmp_path / "submissions" / "ben.ipynb").write_text("cut off")
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    environment = {**os.environ, **settings, "PATH": path}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["notebook,1.1", "ann.ipynb,done", "ben.ipynb,unreadable"]
    assert settings.keys() == {"VAE_TUTORIAL_STRICT", "VAE_TUTORIAL_EPOCHS"}
