"""Turn pytest's report on a folder of submissions into a table, one row a notebook, one column an exercise.

    VAE_TUTORIAL_STRICT=1 VAE_TUTORIAL_EPOCHS=1 pytest --nbval-lax --junitxml=report.xml submissions
    python -m vae_tutorial.checks report.xml submissions > grades.csv

The first command runs the students' code: do it in a container.
"""

import csv
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat

_CHECK = re.compile(r"= check\(\s*[\"'](\d+\.\d+)[\"']")
_FAILED = re.compile(r"^(\d+\.\d+) (open|wrong|crashed): ", re.MULTILINE)


def read_report(path):
    """Return {(notebook, cell): the text of its failure, None if it passed} of a report by pytest and nbval."""
    try:
        cases = ElementTree.parse(path).iter("testcase")
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"{path} is no report ({error}): make one with pytest --junitxml={path}.") from None
    failures = {(case.get("classname"), case.get("name")): case.find("failure") for case in cases}
    return {key: None if failure is None else failure.text or "" for key, failure in failures.items()}


def grade(notebook, outcome_of):
    """Return {exercise: done, open, wrong, crashed or not checked}; outcome_of(cell) is None for a cell that passed."""
    grades = {}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for index, cell in enumerate(cells):
        outcome = outcome_of(f"Cell {index}")
        failed = dict(_FAILED.findall(outcome or ""))
        state = "done"
        for number in _CHECK.findall(cell.source):
            # what stands in a cell below the check that failed was not reached
            grades[number] = failed.get(number, state if outcome is None or failed else "not checked")
            state = "not checked" if number in failed else state
    return grades


def table(report, folder):
    """Return the rows of the table, the heading first; ValueError when the folder holds no notebook of the report."""
    outcomes, grades = read_report(report), {}
    for path in sorted(folder.rglob("*.ipynb")):
        name = "." + path.as_posix().replace("/", ".")
        own = {cell: text for (notebook, cell), text in outcomes.items() if name.endswith("." + notebook)}
        if own:
            notebook = nbformat.read(path, as_version=4)
            grades[path.relative_to(folder).as_posix()] = grade(notebook, lambda cell, own=own: own.get(cell, ""))
    if not grades:
        raise ValueError(f"{report} speaks of no notebook in {folder}: name the folder that pytest was given.")
    numbers = sorted({number for row in grades.values() for number in row}, key=lambda n: [*map(int, n.split("."))])
    rows = [[name, *(row.get(number, "missing") for number in numbers)] for name, row in grades.items()]
    return [["notebook", *numbers], *rows]


def main(arguments):
    if len(arguments) != 2:
        print("usage: python -m vae_tutorial.checks report.xml submissions > grades.csv", file=sys.stderr)
        return 2
    try:
        csv.writer(sys.stdout, lineterminator="\n").writerows(table(arguments[0], Path(arguments[1])))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
