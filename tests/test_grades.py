"""The table of a class: a folder of submissions, run by pytest and nbval, held against who did what."""

import csv
import os
import shutil
import subprocess

import nbformat
import pytest
from test_notebooks import SOLUTIONS, read, up_to
from test_readme import ROOT, readme_command

from vae_tutorial.authoring.exercises import fold_code, make_exercise
from vae_tutorial.authoring.grade import main, table

# what the cell fails with when an exercise is wrong or open, as from vae_tutorial.checks, which takes seconds to import
CHECK = """
class CheckFailed(Exception):
    def _render_traceback_(self):
        return [str(self)]

def check(number, state):
    if state != "done":
        raise CheckFailed(f"{number} {state}: because.")
"""
DONE_1, DONE_2 = 'check("1.1", "done")', 'check("1.2", "done")'
STUBBORN = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass\n"
# what is handed in, the cells below CHECK or the bytes of a file: what stands in the table for exercises 1.1 and 1.2
HANDED_IN = {
    "ann/01.ipynb": (['check("1.1", "wrong")', DONE_2], "wrong,done"),
    "team/ann/01.ipynb": ([DONE_1, 'check("1.2", "wrong")'], "done,wrong"),
    "Zoë Müller 1.2/my 01 (2).ipynb": (['check("1.1", "open")', DONE_2], "open,done"),
    "[b]/01.ipynb": (['check("1.1", "crashed")', DONE_2], "crashed,done"),
    "=cmd()/01.ipynb": (['x = check("1.1", "done")\nx = check("1.2", "wrong")'], "done,wrong"),
    "+1/01.ipynb": (['check("1.1", "open")\ncheck("1.2", "done")'], "open,not checked"),
    "build/01.ipynb": ([DONE_1, DONE_2], "not checked,not checked"),  # pytest looks into no folder of this name
    "deleted/01.ipynb": ([DONE_2], "missing,done"),
    "commented out/01.ipynb": ([f"# {DONE_1}", DONE_2], "missing,done"),
    "skipped/01.ipynb": ([f"# NBVAL_SKIP\n{DONE_1}", DONE_2], "not checked,done"),
    "renamed/01.ipynb": (['check("1.1", encoder)', DONE_2], "crashed,done"),
    "syntax/01.ipynb": (["def state():\nreturn 1", 'check("1.1", state())', DONE_2], "crashed,done"),
    "asks/01.ipynb": ([f"input('?')\n{DONE_1}", DONE_2], "crashed,done"),
    "endless/01.ipynb": ([f"while True: pass\n{DONE_1}", DONE_2], "crashed,done"),
    "endless and stubborn/01.ipynb": ([STUBBORN + DONE_1, DONE_2], "crashed,not checked"),
    "ends the kernel/01.ipynb": ([DONE_1, f"import os; os._exit(0)\n{DONE_2}"], "done,crashed"),
    "ends it before/01.ipynb": (["import os; os._exit(0)", DONE_1, DONE_2], "crashed,not checked"),
    "no cells/01.ipynb": (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "missing,missing"),
    "empty/01.ipynb": (b"", "unreadable,unreadable"),
    "cut off/01.ipynb": (b'{"cells": [{"cell_type": "code", "sou', "unreadable,unreadable"),
    "a picture/01.ipynb": (b"\x89PNG\r\n\x1a\n", "unreadable,unreadable"),
    "a list/01.ipynb": (b"[]", "unreadable,unreadable"),
}


def hand_in(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        cells = [nbformat.v4.new_code_cell(text) for text in (CHECK, *content)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def run_submissions(folder, *options):
    """Run the README's command over folder/submissions, in pytest's settings of this project."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    command, environment = readme_command("--junitxml")
    how = dict(cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    return subprocess.run([*command, *options], **how)


def read_table(folder):
    """The lines that the README's command makes of folder/report.xml and folder/submissions."""
    command, environment = readme_command("-m vae_tutorial.authoring.grade")
    *command, redirect, file = command
    assert redirect == ">" and file.endswith(".csv")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    return done.stdout.splitlines()


def submission(folder, student, *solved, mistakes=()):
    """Write the exercise of notebook 01 up to 1.4, with the cells of the solved exercises filled."""
    notebook = up_to(make_exercise(read(SOLUTIONS[0]), "01"), 'check("1.4"')
    whole = make_exercise(read(SOLUTIONS[0]), "01").cells
    for index, cell in enumerate(notebook.cells[:-1]):
        if any(f'check("{number}"' in notebook.cells[index + 1].source for number in solved):
            cell.source = fold_code(whole[index + 2].source)
        for old, new in mistakes:
            cell.source = cell.source.replace(old, new)
    (folder / student).mkdir(parents=True)
    nbformat.write(notebook, folder / student / "01_vae.ipynb")


@pytest.mark.slow
def test_a_folder_of_submissions_becomes_a_table(tmp_path):
    folder = tmp_path / "submissions"
    submission(folder, "ann", "1.1", "1.2", "1.4")
    submission(folder, "ben")
    submission(folder, "cy.d", "1.1", "1.4", mistakes=[("0.5 * logvar", "logvar"), ("mse + beta", "mses + beta")])
    assert run_submissions(tmp_path).returncode == 1
    assert read_table(tmp_path) == [
        "notebook,1.1,1.2,1.3,1.4",
        "ann/01_vae.ipynb,done,done,done,done",
        "ben/01_vae.ipynb,open,open,not checked,open",
        "cy.d/01_vae.ipynb,crashed,open,not checked,wrong",
    ]


@pytest.mark.slow
def test_whatever_is_handed_in_the_run_ends_and_every_file_has_its_row(tmp_path):
    for name, (content, _) in HANDED_IN.items():
        hand_in(tmp_path / "submissions" / name, content)
    hand_in(tmp_path / "submissions" / ".ipynb_checkpoints" / "01-checkpoint.ipynb", [DONE_1])
    (tmp_path / "submissions" / "a folder.ipynb").mkdir()
    run_submissions(tmp_path, "--nbval-cell-timeout=20")
    got = {name: ",".join(states) for name, *states in csv.reader(read_table(tmp_path))}
    wanted = {name: states for name, (_, states) in HANDED_IN.items()}
    for formula in ("=cmd()/01.ipynb", "+1/01.ipynb", "[b]/01.ipynb"):
        wanted[f"./{formula}"] = wanted.pop(formula)
    assert got == {"notebook": "1.1,1.2", **wanted}


def report(folder, *cases):
    """Write a report of (classname, name, failure); return its path."""
    lines = [f'<testcase classname="{where}" name="{name}">{text}</testcase>' for where, name, text in cases]
    (folder / "report.xml").write_text(f"<testsuites>{''.join(lines)}</testsuites>", encoding="utf-8")
    return folder / "report.xml"


def graded(folder, *cases):
    return [",".join(row) for row in table(report(folder, *cases), folder / "submissions")[1:]]


@pytest.mark.parametrize(
    "where, name",
    [
        ("ann.01.ipynb", "Cell 1"),  # where pytest's root is the folder itself
        ("submissions.ann.01.ipynb", "Cell 1"),
        ("class.of.26.submissions.ann.01.ipynb", "Cell 1"),
        ("...submissions.ann.01.ipynb", "Cell 1"),  # where the root lies elsewhere
        ("submissions.ann/01.ipynb", "Cell 1"),
        ("", "submissions/ann/01.ipynb::Cell 1"),  # as pytest 8 writes it where a name has a bracket
    ],
)
def test_a_notebook_is_found_however_the_report_names_it(tmp_path, where, name):
    tmp_path = tmp_path / "class" / "of" / "26"
    hand_in(tmp_path / "submissions" / "ann" / "01.ipynb", [DONE_1])
    hand_in(tmp_path / "submissions" / "b" / "ann" / "01.ipynb", [DONE_1])
    wrong = "<failure>1.1 wrong: because.</failure>"
    assert graded(tmp_path, (where, name, wrong)) == ["ann/01.ipynb,wrong", "b/ann/01.ipynb,not checked"]


@pytest.mark.parametrize("part", ["failure", "error"])
def test_a_cell_on_which_pytest_itself_broke_is_not_done(tmp_path, part):
    hand_in(tmp_path / "submissions" / "ann.ipynb", [DONE_1])
    broke = f"<{part}>worker 'gw1' crashed while running ann.ipynb::Cell 1</{part}>"
    assert graded(tmp_path, ("submissions.ann.ipynb", "Cell 1", broke)) == ["ann.ipynb,crashed"]


@pytest.mark.parametrize(
    "names, piece",
    [
        (["a.b/01.ipynb", "a/b/01.ipynb"], "a/b/01.ipynb and a.b/01.ipynb are one name in the report: rename one"),
        (["bell\a/01.ipynb"], r"'bell\x07/01.ipynb' has characters that no report holds: rename it"),
        ([os.fsdecode(b"M\xfcller.ipynb")], "has characters that no report holds: rename it"),
    ],
)
def test_names_that_a_report_cannot_tell_apart_are_refused(tmp_path, capsys, names, piece):
    try:
        for name in names:
            hand_in(tmp_path / "submissions" / name, [DONE_1])
    except (OSError, UnicodeError):
        pytest.skip("no file can have this name here")
    arguments = [str(report(tmp_path, ("01.ipynb", "Cell 1", ""))), str(tmp_path / "submissions")]
    assert main(arguments) == 1 and piece in capsys.readouterr().err


@pytest.mark.parametrize("text, piece", [("no xml", "is no report"), ("<testsuites/>", "speaks of no notebook")])
def test_what_is_no_report_is_refused(tmp_path, capsys, text, piece):
    (tmp_path / "report.xml").write_text(text)
    assert main([str(tmp_path / "report.xml"), str(tmp_path)]) == 1
    assert piece in capsys.readouterr().err


# entities, each ten times the one before, the last a billion laughs; and a file of the machine that grades
LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
ENTITIES = {"a billion laughs": f'<!ENTITY e0 "ha">{LAUGHS}', "another file": '<!ENTITY e9 SYSTEM "SECRET">'}


@pytest.mark.parametrize("entities", ENTITIES.values(), ids=ENTITIES)
def test_a_report_that_would_blow_up_or_read_another_file_is_refused(tmp_path, capsys, entities):
    hand_in(tmp_path / "submissions" / "ann.ipynb", [DONE_1])
    (tmp_path / "secret").write_text("1.1 wrong: because.")
    path = report(tmp_path, ("submissions.ann.ipynb", "Cell 1", "<failure>&e9;</failure>"))
    entities = entities.replace("SECRET", (tmp_path / "secret").as_uri())
    path.write_text(f"<!DOCTYPE testsuites [{entities}]>{path.read_text()}")
    assert main([str(path), str(tmp_path / "submissions")]) == 1
    said = capsys.readouterr()
    assert f"{path} is no report" in said.err and said.out == ""


def test_it_says_how_it_is_called(capsys):
    assert main([]) == 2 and "report.xml submissions > grades.csv" in capsys.readouterr().err
