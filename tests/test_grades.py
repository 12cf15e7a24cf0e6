"""The table of a class: a folder of submissions, run by pytest and nbval, held against who did what."""

import shutil
import subprocess

import nbformat
import pytest
from test_notebooks import SOLUTIONS, read, up_to
from test_readme import ROOT, readme_command

from vae_tutorial.checks.__main__ import main
from vae_tutorial.exercises import fold_code, make_exercise


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


def test_a_folder_of_submissions_becomes_a_table(tmp_path):
    folder = tmp_path / "submissions"
    submission(folder, "ann", "1.1", "1.2", "1.4")
    submission(folder, "ben")
    submission(folder, "cy.d", "1.1", "1.4", mistakes=[("0.5 * logvar", "logvar"), ("mse + beta", "mses + beta")])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command, environment = readme_command("--junitxml")
    assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode == 1
    command, environment = readme_command("-m vae_tutorial.checks")
    *command, redirect, file = command
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (
        redirect == ">"
        and file.endswith(".csv")
        and done.stdout.splitlines()
        == [
            "notebook,1.1,1.2,1.3,1.4",
            "ann/01_vae.ipynb,done,done,done,done",
            "ben/01_vae.ipynb,open,open,not checked,open",
            "cy.d/01_vae.ipynb,crashed,open,not checked,wrong",
        ]
    )


@pytest.mark.parametrize("text, piece", [("no xml", "is no report"), ("<testsuites/>", "speaks of no notebook")])
def test_what_is_no_report_is_refused(tmp_path, capsys, text, piece):
    (tmp_path / "report.xml").write_text(text)
    assert main([str(tmp_path / "report.xml"), str(tmp_path)]) == 1
    assert piece in capsys.readouterr().err


def test_it_says_how_it_is_called(capsys):
    assert main([]) == 2 and "report.xml submissions > grades.csv" in capsys.readouterr().err
