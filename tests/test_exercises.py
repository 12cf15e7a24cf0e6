"""What making exercises promises: the same bytes every time, a fold that fills each blank, a refusal of any doubt."""

import ast
import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from vae_tutorial.authoring import exercises
from vae_tutorial.authoring.exercises import MarkerError, fold_code, main, make_exercise, open_blanks, strip_markers

ROOT = Path(exercises.__file__).parents[2]
HINT = "<details><summary>Hint</summary>\n\nTwo lines of √2.\n\n</details>"

MARKED = '''class Encoder(Base):
    """Not a marker: # SOLUTION"""

    @staticmethod
    def forward(self, x):
        h = relu(x)  # (B, D)  # SOLUTION
        # the closed-form solution of Kingma: two heads
        # BEGIN SOLUTION
        mu = self.conv_mu(h)

        logvar = self.conv_logvar(h)
        # END SOLUTION
        return mu.flatten(1), logvar  # SOLUTION
'''
STRIPPED = '''class Encoder(Base):
    """Not a marker: # SOLUTION"""

    @staticmethod
    def forward(self, x):
        h = relu(x)  # (B, D)
        # the closed-form solution of Kingma: two heads
        mu = self.conv_mu(h)

        logvar = self.conv_logvar(h)
        return mu.flatten(1), logvar
'''
OPEN = '''class Encoder(Base):
    """Not a marker: # SOLUTION"""

    @staticmethod
    def forward(self, x):
        h = ...  # (B, D)
        # the closed-form solution of Kingma: two heads
        ...  # exercise 1.2: your code here
        return ...
'''


def exercise_cells(source=MARKED, check='Encoder = check("1.2", Encoder)', hint=HINT):
    return [new_code_cell(source), new_code_cell(check), new_markdown_cell(hint)]


def solution_notebook(*cells):
    """A solution notebook that has been run: outputs, counts, tags, times and versions that no exercise should keep."""
    ran = {"execution_count": 7, "outputs": [new_output("stream", text="3.14\n")]}
    tags = {"tags": ["nbval-check-output", "slow"], "execution": {"iopub.execute_input": "12:00"}}
    cells = cells or [
        new_markdown_cell("# Ümläute\n\n```python\nx = 1  # SOLUTION\n```"),
        new_code_cell("import math\nmath.pi", metadata=tags, **ran),
        *exercise_cells(),
        new_code_cell("1", metadata={"tags": ["nbval-check-output"]}),
        new_raw_cell("raw  # SOLUTION"),
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "version": "3.11.7"},
        "authors": [{"name": "Zoë"}],
    }
    return new_notebook(cells=list(cells), metadata=metadata)


def write_solution(folder, notebook, name="a.ipynb"):
    path = folder / "solutions" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def robot_fills(exercise, solution):
    """Code of the exercise after a student has copied each fold into the cell that it belongs to, two above it."""
    filled = copy.deepcopy(exercise)
    for index, cell in enumerate(filled.cells):
        if cell.source != solution.cells[index].source and cell.cell_type == "markdown":
            filled.cells[index - 2].source = fold_code(cell.source)
    return code(filled)


# --- the code of one cell


def test_markers_are_stripped():
    assert strip_markers(MARKED) == STRIPPED


def test_blanks_are_opened():
    assert open_blanks(MARKED, "1.2") == OPEN


@pytest.mark.parametrize(
    "numbers, label",
    [
        (["1.2"], "exercise 1.2: "),
        (["1.2", "1.3"], "exercises 1.2 and 1.3: "),
        (["1.1", "1.2", "1.3"], "exercises 1.1, 1.2 and 1.3: "),
    ],
)
def test_a_blank_names_its_exercises(numbers, label):
    assert f"        ...  # {label}your code here\n" in open_blanks(MARKED, *numbers)


@pytest.mark.parametrize(
    "solution, exercise",
    [
        ("x = 1", "x = ..."),
        ("x, *self.y = f(x == 2, a='=')", "x, *self.y = ..."),
        ("x = y[a == b] = lambda a=1: a", "x = y[a == b] = ..."),
        ("x: dict['=', int] = {}", "x: dict['=', int] = ..."),
        ("(x) = (1 + 2) * (3)", "(x) = ..."),
        ("return (1 + 2) * (3)", "return ..."),
        ("return(x)", "return ..."),
        ("größe['é', '日本'] = π * r", "größe['é', '日本'] = ..."),
        ("x = '# SOLUTION'", "x = ..."),
        ("x = await y", "x = ..."),
    ],
)
@pytest.mark.parametrize("comment", ["", "  # (B, D)", " # größer  # (B, D)"])
def test_a_line_keeps_its_left_side_and_its_comment(solution, exercise, comment):
    function = "async def f(x):\n    {}{}"
    marked = function.format(solution, comment + "  # SOLUTION")
    assert strip_markers(marked) == function.format(solution, comment)
    assert open_blanks(marked, "1.1") == function.format(exercise, comment and "  " + comment.strip())


@pytest.mark.parametrize(
    "head",
    [
        "def f():",
        "async def f():",
        "@decorate(a=1)\ndef f(\n    x=1,\n):",
        "class A:\n  @property\n  def f(self):",
        "def f():\n  class A:",
        "def f():\n  def g():",
        "if a:\n  pass\nelse:\n  def f():",
        "def f():\n  for x in y:",
    ],
)
def test_blanks_stand_in_functions_of_every_kind(head):
    line = "      x = 1  # SOLUTION"
    block = "      # BEGIN SOLUTION\n      @d\n      def h(): 1; 2\n      # END SOLUTION"
    assert open_blanks(f"{head}\n{line}\n", "1.1") == f"{head}\n      x = ...\n"
    assert open_blanks(f"{head}\n{block}\n", "1.1") == f"{head}\n      ...  # exercise 1.1: your code here\n"


@pytest.mark.parametrize(
    "text", ["a = '''\nleft\n    '''", "if a:\n        b\n    else:\n        c", "a; b", "return\n\n"]
)
def test_a_block_may_hold_any_whole_statements(text):
    marked = f"def f():\n    a = b\n    # BEGIN SOLUTION\n    {text}\n    # END SOLUTION\n    c = d"
    exercise = "def f():\n    a = b\n    ...  # exercise 1.1: your code here\n    c = d"
    assert strip_markers(marked) == f"def f():\n    a = b\n    {text}\n    c = d"
    assert open_blanks(marked, "1.1") == exercise


STATEMENTS = {
    "x = 1": "x = ...",
    "self.é, ß = 'ü # SOLUTION', x  # (B, 日本)": "self.é, ß = ...  # (B, 日本)",
    "return '# END SOLUTION' + x": "return ...",
    "y: int = (x == '=')": "y: int = ...",
}
FUNCTIONS = st.lists(st.tuples(st.sampled_from(sorted(STATEMENTS)), st.sampled_from(["", "line", "block"])), min_size=1)


def as_function(statements, line="{}", block="{}"):
    forms = {"": "{}", "line": line, "block": block}
    return "\n".join(["def f(self, x):", *("    " + forms[mark].format(text) for text, mark in statements)])


@given(FUNCTIONS)
def test_any_function_is_stripped_opened_and_filled(statements):
    plain = as_function(statements)
    marked = as_function(statements, "{}  # SOLUTION", "# BEGIN SOLUTION\n    {}\n    # END SOLUTION")
    opened = [("..." if mark == "block" else STATEMENTS[text] if mark else text, mark) for text, mark in statements]
    exercise = open_blanks(marked, "1.1")
    assert strip_markers(marked) == plain
    assert exercise == as_function(opened, block="{}  # exercise 1.1: your code here")
    # filling, line by line, what differs from the solution gives the solution
    filled = [s if e != s else e for e, s in zip(exercise.split("\n"), plain.split("\n"), strict=True)]
    assert "\n".join(filled) == plain


@given(FUNCTIONS)
def test_code_without_markers_stays_as_it_is(statements):
    plain = as_function(statements)
    assert strip_markers(plain) == open_blanks(plain, "1.1") == plain


BLOCK = "# BEGIN SOLUTION\n    a = x  # (B, D)\n    y = a\n    # END SOLUTION"
LINES = ["x = 1  # SOLUTION", "return x  # SOLUTION", BLOCK, "y = x", "if x: pass", "'''# SOLUTION'''", ""]
BROKEN = ["# BEGIN SOLUTION", "# END SOLUTION", "if x:", "    z", "'''", "x = ["]
LINES = st.sampled_from(LINES) | st.sampled_from(LINES) | st.sampled_from([*LINES, *BROKEN]) | st.text(max_size=9)


@given(st.lists(LINES, max_size=6).map(lambda lines: in_function(*lines)))
def test_any_text_is_refused_or_keeps_its_meaning_and_opens_every_blank(source):
    try:
        stripped, opened = strip_markers(source), open_blanks(source, "1.1")
    except MarkerError as error:
        assert re.match(r"line \d+: ", str(error))
        return
    assert ast.dump(ast.parse(stripped)) == ast.dump(ast.parse(source))
    assert strip_markers(stripped) == stripped and open_blanks(opened) == opened
    # a marker inside a string is none, and stays
    blanks = sum(source.count(marker) - stripped.count(marker) for marker in ("# SOLUTION", "# END SOLUTION"))
    assert opened.count("...") == source.count("...") + blanks


# --- what is refused


def in_function(*lines):
    return "\n    ".join(["def f(x):", *lines])


@pytest.mark.parametrize(
    "comment",
    ["#SOLUTION", "# solution", "# Solution", "# SOLUTON", "# SOLTUION", "# soluton", "# SOLUTIONS", "# SOLUTION: 1"]
    + ["#  SOLUTION", "## SOLUTION", "# START SOLUTION", "# begin solution", "# BEGIN SOLUTIONS", "# BEGIN_SOLUTION"]
    + ["# END", "# BEGIN HIDDEN", "# SOLUTION  # (B, D)", "# (B, D)# SOLUTION"]  # and well written, after code:
    + ["# BEGIN SOLUTION", "# x  # END SOLUTION"],
)
def test_what_is_nearly_a_marker_is_refused(comment):
    for convert in strip_markers, open_blanks:
        with pytest.raises(MarkerError, match="line 2: .* is nearly a marker: write '# SOLUTION' after") as error:
            convert(in_function(f"x = 1  {comment}"))
        assert repr(comment) in str(error.value) and "or reword it" in str(error.value)


@pytest.mark.parametrize(
    "comment",
    ["# the closed-form solution of Kingma", "# low resolution", "# 32x32 RESOLUTION", "# convolution", "# evolution"]
    + ["# end", "# begin here", "# ENDS at 1", "# colour  # ff0000", "# the solution: see above", "#", "# (B, D)"],
)
def test_ordinary_comments_pass(comment):
    source = in_function(f"x = 1  {comment}", comment)
    assert strip_markers(source) == open_blanks(source, "1.1") == source


@pytest.mark.parametrize(
    "line, lines",
    [
        (2, ["x += 1  # SOLUTION"]),
        (2, ["x: int  # SOLUTION"]),
        (2, ["return  # SOLUTION"]),
        (2, ["f(x)  # SOLUTION"]),
        (2, ["# SOLUTION", "x = 1"]),
        (2, ["x = 1; y = 2  # SOLUTION"]),
        (2, ["if x: y = 2  # SOLUTION"]),
        (2, ["x = (  # SOLUTION", "1)"]),
        (3, ["x = (", "1)  # SOLUTION"]),
        (3, ["x = f(", "y=1  # SOLUTION", ")"]),
        (3, ["x = 1 + \\", "1  # SOLUTION"]),
        (3, ["x = \\", "y = 1  # SOLUTION"]),
    ],
)
def test_a_line_that_is_no_whole_assignment_or_return_is_refused(line, lines):
    found = lines[line - 2].strip()
    with pytest.raises(MarkerError, match=rf"line {line}: '# SOLUTION' needs one assignment \(=\) or return") as error:
        strip_markers(in_function(*lines))
    assert f"found {found!r}: write it so, or use '# BEGIN SOLUTION'" in str(error.value)


@pytest.mark.parametrize("head", ["", "class A:", "if a:", "x = lambda: 1", "def f():\n    pass\nif a:"])
def test_blanks_outside_functions_are_refused(head):
    indent = "    " if head.endswith(":") else ""
    for marked in ["{}x = 1  # SOLUTION", "{0}# BEGIN SOLUTION\n{0}x = 1\n{0}# END SOLUTION"]:
        with pytest.raises(MarkerError, match=r"line \d: .* function.* found .*x = 1"):
            strip_markers(head + "\n" + marked.format(indent))


@pytest.mark.parametrize(
    "source",
    [
        in_function("x = 1", "# BEGIN SOLUTION", "# END SOLUTION"),
        in_function("# BEGIN SOLUTION", "# only a comment", "", "# END SOLUTION", "x = 1"),
        in_function("# BEGIN SOLUTION", "x = 1", "    # END SOLUTION"),
        in_function("    # BEGIN SOLUTION", "x = 1", "    # END SOLUTION"),
        in_function("if x:", "    a", "# BEGIN SOLUTION", "    b", "# END SOLUTION", "c"),
        in_function("x = [", "# BEGIN SOLUTION", "1", "# END SOLUTION", "]"),
        in_function("x = [", "# BEGIN SOLUTION", "1]", "# END SOLUTION"),
        in_function("if x:", "    # BEGIN SOLUTION", "    a", "else:", "    # END SOLUTION", "    b"),
        "def f():\n    # BEGIN SOLUTION\n    a = 1\nb = 2\n    # END SOLUTION",
        "if a:\n  def f():\n    # BEGIN SOLUTION\n    a\nelse:\n    b\n    # END SOLUTION",
        "def f(\n    # BEGIN SOLUTION\n    x,\n    # END SOLUTION\n): pass",
        "# BEGIN SOLUTION\ndef f(): return 1\n# END SOLUTION",
        "class A:\n    # BEGIN SOLUTION\n    def f(self):\n        return 1\n    # END SOLUTION",
    ],
)
def test_a_block_that_holds_no_whole_statements_is_refused(source):
    line = next(number for number, text in enumerate(source.split("\n"), 1) if "BEGIN" in text)
    with pytest.raises(MarkerError, match=rf"line {line}: .* need whole statements of a function .*, at least one, .*"):
        strip_markers(source)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["# END SOLUTION", "x = 1"], "line 2: found '# END SOLUTION' without '# BEGIN SOLUTION'"),
        (["# BEGIN SOLUTION", "x = 1"], "line 2: '# BEGIN SOLUTION' is never closed: write '# END SOLUTION' below it"),
        (["# BEGIN SOLUTION", "x = 1", "# BEGIN SOLUTION"], "line 4: found '# BEGIN SOLUTION' in the block of line 2"),
        (
            ["# BEGIN SOLUTION", "x = 1  # SOLUTION", "# END SOLUTION"],
            "line 3: found '# SOLUTION' in the block of line 2",
        ),
        (["x = 1  # SOLUTION", "# END SOLUTION"], "line 3: found '# END SOLUTION' without"),
        (["x = = 1  # SOLUTION"], "line 2: the code is no valid Python (invalid syntax): mend 'x = = 1  # SOLUTION'"),
        (["x = 1", "%matplotlib inline"], "line 3: the code is no valid Python"),
        (["x = '\0'"], "null bytes"),
    ],
)
def test_what_does_not_add_up_is_refused(lines, message):
    with pytest.raises(MarkerError) as error:
        strip_markers(in_function(*lines))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["# BEGIN SOLUTION", "if x:", "    1", "# END SOLUTION", "else:", "    2"], "(invalid syntax): mend 'else:'"),
        (["# BEGIN SOLUTION", "a = 1", "# END SOLUTION", "def g():", "    nonlocal a"], "no binding for nonlocal 'a'"),
    ],
)
def test_code_that_its_open_blanks_would_break_is_refused(lines, message):
    with pytest.raises(MarkerError) as error:
        open_blanks(in_function(*lines), "1.1")
    assert "with its blanks open the code is no valid Python" in str(error.value) and message in str(error.value)


# --- the notebook


def test_the_exercise_is_a_pure_function_of_the_solution():
    solution = solution_notebook()
    before = copy.deepcopy(solution)
    first, second = (nbformat.writes(make_exercise(solution, "a.ipynb")) for _ in range(2))
    assert first == second
    assert solution == before


def test_an_exercise_has_no_blanks_to_open_a_second_time():
    exercise = make_exercise(solution_notebook(), "a.ipynb")
    assert make_exercise(exercise, "a.ipynb") == exercise


def test_the_exercise_is_a_valid_notebook_with_the_solutions_cells():
    solution = solution_notebook()
    exercise = make_exercise(solution, "a.ipynb")
    nbformat.validate(exercise)
    assert (exercise.nbformat, exercise.nbformat_minor) == (4, 5)
    assert [(c.id, c.cell_type) for c in exercise.cells] == [(c.id, c.cell_type) for c in solution.cells]
    changed = [i for i, (a, b) in enumerate(zip(exercise.cells, solution.cells, strict=True)) if a.source != b.source]
    assert changed == [2, 4]


def test_nothing_of_a_run_is_left():
    exercise = make_exercise(solution_notebook(), "a.ipynb")
    cells = [cell for cell in exercise.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert [cell.metadata for cell in cells] == [{"tags": ["slow"]}, {}, {}, {}]


def test_metadata_is_kept_without_the_version_that_ran():
    solution = solution_notebook()
    metadata = make_exercise(solution, "a.ipynb").metadata
    assert metadata == {**solution.metadata, "language_info": {"name": "python"}}


def test_the_fold_holds_the_whole_code_below_the_hint():
    exercise = make_exercise(solution_notebook(), "a.ipynb")
    fold = f"{HINT}\n\n<details><summary>Solution</summary>\n\n```python\n{STRIPPED}\n```\n\n</details>"
    assert exercise.cells[4].source == fold
    assert exercise.cells[2].source == OPEN


@pytest.mark.parametrize(
    "text", ["```", "````python\n</details>", "<details><summary>Solution</summary>\n\n```python\n"]
)
def test_a_fold_holds_any_code(text):
    source = f'def f():\n    """\n{text}\n"""\n    return 1  # SOLUTION'
    exercise = make_exercise(solution_notebook(*exercise_cells(source)), "a.ipynb")
    assert fold_code(exercise.cells[2].source) == strip_markers(source)
    assert exercise.cells[2].source.split("\n")[-3] not in source  # no fence in it ends the fold's


def test_a_cell_without_a_fold_has_no_code():
    with pytest.raises(ValueError, match="must end in a folded solution, but ends in .*</details>.*: make it anew"):
        fold_code(HINT)


def test_the_robot_student_arrives_at_the_solution():
    more = exercise_cells("def f():\n    return 'é'  # SOLUTION", 'f = check("1.3", f)')
    solution = solution_notebook(*solution_notebook().cells, *more)
    exercise = make_exercise(solution, "a.ipynb")
    assert robot_fills(exercise, solution) == [strip_markers(source) for source in code(solution)] != code(exercise)


def test_line_ends_are_newlines():
    cells = exercise_cells(MARKED.replace("\n", "\r\n"), hint=HINT.replace("\n", "\r"))
    exercise = make_exercise(solution_notebook(*cells), "a.ipynb")
    assert exercise.cells[0].source == OPEN
    assert "\r" not in nbformat.writes(exercise)


@pytest.mark.parametrize(
    "check, label",
    [
        ('# the check\nEncoder = check("1.2", Encoder)', "exercise 1.2"),
        ("a, b = check('1.2', a, b)", "exercise 1.2"),
        ('(a, b) = check(\n    "1.2", a, b)\n\nc = check("1.3", c)', "exercises 1.2 and 1.3"),
    ],
)
def test_the_number_comes_from_the_check(check, label):
    exercise = make_exercise(solution_notebook(*exercise_cells(check=check)), "a.ipynb")
    assert f"...  # {label}: your code here" in exercise.cells[0].source


@pytest.mark.parametrize(
    "check",
    ["", "check('1.2', a)", "a = check('1.2', b)", "a, b = check('1.2', b, a)", "a = check(1.2, a)", "a = check('1.2')"]
    + ["a = check('1.2', a)\nprint(a)", "a = check('1.2', a, b)", "a = b = check('1.2', a)", "a = check('1.2', a) + 1"],
)
def test_a_blank_without_a_check_below_it_is_refused(check):
    with pytest.raises(MarkerError, match=r'^a.ipynb, cell 1, line 6: .* name = check\("1.2", name\)') as error:
        make_exercise(solution_notebook(*exercise_cells(check=check)), "a.ipynb")
    assert f"found {[check.splitlines()[0] if check else '', HINT.splitlines()[0]]}" in str(error.value)


@pytest.mark.parametrize(
    "hint",
    [
        "A hint.",
        "<details><summary>Hint</summary>\n\nnever closed",
        HINT + "\n\n<details><summary>Solution</summary>\n\n</details>",
    ],
)
def test_a_blank_without_a_hint_below_it_is_refused(hint):
    message = "cell 1, line 6: .* markdown that starts with <details>, closes it and holds no solution"
    with pytest.raises(MarkerError, match=message):
        make_exercise(solution_notebook(*exercise_cells(hint=hint)), "a.ipynb")


@pytest.mark.parametrize("order", [[0], [0, 1], [0, 3, 1, 2], [0, 1, 3], [0, 1, 3, 2], [0, 2, 1]])
def test_the_three_cells_follow_each_other(order):
    four = [*exercise_cells(), new_markdown_cell("between")]
    message = "cell 1, line 6: the two cells below a blank must be .*: add or mend them"
    with pytest.raises(MarkerError, match=message):
        make_exercise(solution_notebook(*(four[i] for i in order)), "a.ipynb")


def test_a_refusal_names_file_cell_and_line():
    cells = [new_markdown_cell("text"), new_code_cell("1\n2  # solution")]
    with pytest.raises(MarkerError, match="^solutions/a.ipynb, cell 2, line 2: '# solution' is nearly a marker"):
        make_exercise(solution_notebook(*cells), "solutions/a.ipynb")


def test_every_code_cell_must_be_python():
    with pytest.raises(MarkerError, match=r"cell 2, line 1: the code is no valid Python \(.*\): mend .a = = check"):
        make_exercise(solution_notebook(*exercise_cells(check="a = = check('1.2', a)")), "a.ipynb")


@pytest.mark.parametrize("damage", [{"nbformat_minor": 4}, {"nbformat": 3}, {"surprise": 1}, {"metadata": []}])
def test_another_format_is_refused(damage):
    with pytest.raises(MarkerError, match="a.ipynb is no valid notebook of format 4.5, with an id for every cell"):
        make_exercise(nbformat.from_dict({**solution_notebook(), **damage}), "a.ipynb")


def test_cells_without_an_id_of_their_own_are_refused():
    missing, twice = solution_notebook(), solution_notebook()
    del missing.cells[0]["id"]
    twice.cells[0]["id"] = twice.cells[1]["id"]
    for notebook in missing, twice:
        with pytest.raises(MarkerError, match="with an id for every cell"):
            make_exercise(notebook, "a.ipynb")


@st.composite
def damaged_notebooks(draw):
    """Draw a notebook one part of which, anywhere in it, may be another thing."""
    notebook = json.loads(nbformat.writes(solution_notebook()))
    part = notebook
    while isinstance(part, dict | list) and part:
        key = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if draw(st.integers(0, 3)) == 3:
            part[key] = draw(st.sampled_from([None, 4, "", "x", [], [3], {}, {"a": [1]}]))
            break
        part = part[key]
    return nbformat.from_dict(notebook)


@given(damaged_notebooks())
def test_a_damaged_notebook_gives_a_valid_exercise_or_is_refused(notebook):
    try:
        exercise = make_exercise(notebook, "a.ipynb")
    except MarkerError as error:
        assert str(error).startswith("a.ipynb")
    else:
        nbformat.validate(exercise)
        assert make_exercise(exercise, "a.ipynb") == exercise


# --- the command


def test_the_command_writes_the_exercises_beside_the_solutions(tmp_path, monkeypatch):
    solution = write_solution(tmp_path, solution_notebook())
    monkeypatch.setattr(exercises, "SOLUTIONS", solution.parent)
    assert main([]) == 0
    written = (tmp_path / "exercises" / "a.ipynb").read_bytes()
    assert nbformat.reads(written.decode(), as_version=4) == make_exercise(solution_notebook_of(solution), "a.ipynb")
    assert written.endswith(b"}\n") and not written.endswith(b"\n\n")
    assert b"\r" not in written and b'\n "cells": [' in written and "Ümläute".encode() in written
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.ipynb", "a.ipynb", "exercises", "solutions"]
    assert main(["--check"]) == 0


def solution_notebook_of(path):
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def test_the_command_takes_your_own_notebooks(tmp_path, monkeypatch):
    write_solution(tmp_path, solution_notebook())
    write_solution(tmp_path, solution_notebook(), "b.ipynb")
    monkeypatch.chdir(tmp_path / "solutions")
    assert main(["a.ipynb"]) == 0
    assert [path.name for path in (tmp_path / "exercises").iterdir()] == ["a.ipynb"]


@pytest.mark.parametrize("content", [None, b"", b"other"])
def test_a_stale_exercise_is_named_with_the_command_to_run(tmp_path, capsys, content):
    solution = write_solution(tmp_path, solution_notebook())
    exercise = tmp_path / "exercises" / "a.ipynb"
    if content is not None:
        exercise.parent.mkdir()
        exercise.write_bytes(content)
    assert main(["--check", str(solution)]) == 1
    message = capsys.readouterr().err
    assert f"{exercise}. Run: python -m vae_tutorial.authoring.exercises {solution}\n" in message
    assert (exercise.read_bytes() if exercise.exists() else None) == content
    assert main([str(solution)]) == main(["--check", str(solution)]) == 0


def test_line_ends_make_an_exercise_stale(tmp_path):
    solution = write_solution(tmp_path, solution_notebook())
    exercise = tmp_path / "exercises" / "a.ipynb"
    main([str(solution)])
    exercise.write_bytes(exercise.read_bytes().replace(b"\n", b"\r\n"))
    assert main(["--check", str(solution)]) == 1


def test_one_refused_notebook_and_none_is_written(tmp_path, capsys):
    good = write_solution(tmp_path, solution_notebook())
    bad = write_solution(tmp_path, solution_notebook(new_code_cell("x = 1  # SOLUTION")), "b.ipynb")
    assert main([str(good), str(bad)]) == 1
    assert f"{bad}, cell 1, line 1: '# SOLUTION' needs" in capsys.readouterr().err
    assert not (tmp_path / "exercises").exists()


def test_a_write_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch, capsys):
    solution = write_solution(tmp_path, solution_notebook())
    exercise = tmp_path / "exercises" / "a.ipynb"
    exercise.parent.mkdir()
    exercise.write_text("old")
    monkeypatch.setattr(exercises.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    assert main([str(solution)]) == 1
    assert "disk full" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in exercise.parent.iterdir()] == [("a.ipynb", "old")]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("exercises/a.ipynb", "{}", "is no solution notebook: name one that lies in a folder solutions"),
        ("solutions/a.py", "x = 1", "a.py is no solution notebook"),
        ("solutions/a.ipynb", "x = 1", "a.ipynb is no notebook (Expecting value"),
        ("solutions/a.ipynb", "[]", "is no valid notebook of format 4.5"),
        ("solutions/a.ipynb", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5}', "is no valid notebook of format 4.5"),
        ("solutions/a.ipynb", "[" * 100_000, "is no notebook (maximum recursion depth"),
        ("solutions/a.ipynb", b"\xff\xfe", "is no notebook ('utf-8' codec can't decode"),
        ("solutions/a.ipynb", '{"cells": [], "metadata": {}}', "is no valid notebook of format 4.5"),
        ("solutions/a.ipynb", None, "No such file"),
    ],
)
def test_what_is_no_solution_notebook_is_refused(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main([str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error and str(path) in error


@pytest.mark.parametrize(
    "cell", ["__import__('pathlib').Path('ran').touch()", "class A(open('ran', 'w').__class__): pass"]
)
def test_nothing_in_a_notebook_is_run(tmp_path, monkeypatch, cell):
    monkeypatch.chdir(tmp_path)
    decorated = f"@open('ran', 'w').write\n{MARKED}"
    path = write_solution(tmp_path, solution_notebook(new_code_cell(cell), *exercise_cells(decorated)))
    assert main([str(path)]) == 0 and (tmp_path / "exercises" / "a.ipynb").exists()
    assert not (tmp_path / "ran").exists()


def test_nothing_is_run_of_what_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch = "x = open('ran', 'w')"
    for cells in exercise_cells(f"{touch}  # SOLUTION"), exercise_cells(check=touch), [new_code_cell(f"{touch}\n=")]:
        with pytest.raises(MarkerError):
            make_exercise(solution_notebook(*cells), "a.ipynb")
    assert not (tmp_path / "ran").exists()


DEEP = ["-" * 100_000 + "1", "1+" * 20_000 + "1", "a" + ".b" * 20_000, "(" * 100_000, "lambda:" * 5_000 + "1"]


@pytest.mark.parametrize("code", DEEP, ids=lambda code: code[:3])
def test_code_too_deep_for_python_is_refused(code):
    for cells in exercise_cells(f"x = {code}"), exercise_cells(check=f"x = check('1.2', {code})"):
        with pytest.raises(MarkerError, match="^a.ipynb, cell [12], line 1: the code is (nested too deeply|no valid)"):
            make_exercise(solution_notebook(*cells), "a.ipynb")


def test_a_check_too_deep_to_be_read_is_no_check():
    check = f"Encoder = check('1.2', {'+'.join(['1'] * 900)})"
    with pytest.raises(MarkerError, match="cell 1, line 6: the two cells below a blank must be"):
        make_exercise(solution_notebook(*exercise_cells(check=check)), "a.ipynb")


def test_metadata_too_deep_for_python_are_refused():
    notebook = solution_notebook()
    notebook.metadata.deep = nested = nbformat.NotebookNode()
    for _ in range(900):
        nested.deep = nested = nbformat.NotebookNode()
    with pytest.raises(MarkerError, match="a.ipynb is no valid notebook"):
        make_exercise(notebook, "a.ipynb")


def test_a_long_notebook_is_read():
    source = "x = 1  # a comment\n" * 20_000
    assert make_exercise(solution_notebook(new_code_cell(source)), "a.ipynb").cells[0].source == source


def test_a_carriage_return_within_a_cell_is_refused():
    with pytest.raises(MarkerError, match="line 1: the code has carriage returns: end every line with a newline alone"):
        strip_markers("a\rb = = 1")


@pytest.mark.parametrize("name", ["a.ipynb", "elsewhere/a.ipynb", "solutions/../a.ipynb", "solutions/x/../../a.ipynb"])
def test_only_what_lies_in_solutions_is_written_beside_it(tmp_path, capsys, name):
    (tmp_path / "solutions" / "x").mkdir(parents=True)
    write_solution(tmp_path, solution_notebook()).rename(tmp_path / "a.ipynb")
    assert main([str(tmp_path / name)]) == 1
    assert "name one that lies in a folder solutions" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb", "solutions"]


def test_links_lead_no_exercise_out_of_its_folder(tmp_path):
    outside = tmp_path / "outside" / "solutions"
    outside.mkdir(parents=True)
    (tmp_path / "precious").write_text("kept")
    write_solution(tmp_path, solution_notebook()).rename(outside / "a.ipynb")
    (tmp_path / "exercises").mkdir()
    try:
        (tmp_path / "solutions" / "a.ipynb").symlink_to(outside / "a.ipynb")
        (tmp_path / "exercises" / "a.ipynb").symlink_to(tmp_path / "precious")
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    assert main([str(tmp_path / "solutions" / "a.ipynb")]) == 0
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "exercises" / "a.ipynb").is_symlink() and not (outside.parent / "exercises").exists()


def test_without_solution_notebooks_the_command_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exercises, "SOLUTIONS", tmp_path / "nowhere")
    for arguments in [], ["--check"]:
        assert main(arguments) == 1
        assert f"no solution notebook in {tmp_path / 'nowhere'}: clone the repository, or" in capsys.readouterr().err


def test_torch_is_not_imported():
    lines = "import sys, vae_tutorial.authoring.exercises; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", lines], cwd=ROOT, check=True)


def test_the_module_runs_as_a_command(tmp_path):
    solution = str(write_solution(tmp_path, solution_notebook()))
    command = [sys.executable, "-m", "vae_tutorial.authoring.exercises", "--check", solution]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "Run: python -m vae_tutorial.authoring.exercises" in result.stderr


# --- this repository's notebooks


def test_every_committed_exercise_is_fresh(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_every_committed_exercise_has_a_solution():
    solutions = [path.name for path in exercises.own_solutions()]
    assert sorted(path.name for path in (ROOT / "notebooks" / "exercises").glob("*.ipynb")) == solutions


def test_the_robot_student_solves_the_committed_exercises():
    for path in exercises.own_solutions():
        solution = solution_notebook_of(path)
        exercise = make_exercise(solution, path.name)
        filled = robot_fills(exercise, solution)
        assert filled == [strip_markers(source) for source in code(solution)]
        assert filled != code(exercise), f"{path.name} has no blank"


def test_committed_blanks_stand_in_functions():
    for path in exercises.own_solutions():
        for source in code(make_exercise(solution_notebook_of(path), path.name)):
            nodes = list(ast.walk(ast.parse(source)))
            functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert all(any(f.lineno < n.lineno <= f.end_lineno for f in functions) for n in nodes if is_blank(n))


def is_blank(node):
    return isinstance(node, ast.Assign | ast.AnnAssign | ast.Return | ast.Expr) and ast.unparse(node).endswith("...")
