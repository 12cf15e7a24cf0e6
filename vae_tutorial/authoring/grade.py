"""Turn pytest's report on a folder of submissions into a table, one row per notebook, one column per exercise.

    export VAE_TUTORIAL_STRICT=1 VAE_TUTORIAL_EPOCHS=1
    pytest --nbval-lax --nbval-cell-timeout=120 --continue-on-collection-errors --junitxml=report.xml submissions
    python -m vae_tutorial.authoring.grade report.xml submissions > grades.csv

The second command runs the students' code, so run it in a container. The third command only reads files.
"""

import csv
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import nbformat

# a check line that is not commented out
_CHECK = re.compile(r"^[^#\n]*\bcheck\(\s*[\"'](\d+\.\d+)[\"']", re.MULTILINE)
_FAILED = re.compile(r"^(\d+\.\d+) (open|wrong|crashed): ", re.MULTILINE)
# nbval reports this for every cell after the one that ended the kernel
_DEAD = "Kernel dead on test start"


def read_report(path):
    """Return {notebook: {cell: text of its failure, None if it passed, "" if skipped}} of a report by pytest and nbval.

    The key of a notebook is its path from pytest's root, with dots for slashes. The key of a cell is its number among
    the code cells.
    """
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"{path} is no report ({error}): make one with pytest --junitxml={path}.") from None
    outcomes = defaultdict(dict)
    for case in cases:
        notebook, _, cell = _dotted(f"{case.get('classname')}.{case.get('name')}").lstrip(".").rpartition(".Cell ")
        parts = {part.tag: part.text or "no reason given" for part in case}
        passed = None if "skipped" not in parts else ""
        outcomes[notebook][cell] = parts.get("failure", parts.get("error", passed))
    return outcomes


def _dotted(path):
    """Write a path nearly as pytest's report does; pytest releases differ for names with brackets or colons."""
    return re.sub(r"::|[/\\]", ".", path)


def grade(cells, outcomes):
    """Return {exercise: done, open, wrong, crashed or not checked} for the code cells of a notebook, given as texts.

    outcomes: {number of the cell: text of its failure, None if it passed}.
    """
    grades, broken = {}, False
    for index, cell in enumerate(cells):
        outcome = outcomes.get(str(index), "")
        failed = dict(_FAILED.findall(outcome or ""))
        # a cell that failed without the word of a check breaks the next check, the first that cannot be made
        broken = broken or bool(outcome) and not failed and _DEAD not in outcome
        state = "done" if outcome is None or failed else "crashed" if broken else "not checked"
        for number in _CHECK.findall(cell):
            grades[number] = failed.get(number, state)
            # the checks below a failed check in the same cell were not reached
            state, broken = state if grades[number] == "done" else "not checked", False
    return grades


def table(report, folder):
    """Return the rows of the table, the heading first; ValueError when the folder holds no notebook of the report."""
    outcomes, names = read_report(report), _notebooks(folder)
    # the report's names begin at pytest's root, which is the folder or lies above it
    above = Path(os.path.abspath(folder)).parts[1:]
    starts = [_dotted("".join(f"{part}/" for part in above[first:])) for first in range(len(above) + 1)]
    start = max(starts, key=lambda start: sum(start + dotted in outcomes for dotted in names))
    if not any(start + dotted in outcomes for dotted in names):
        raise ValueError(f"{report} speaks of no notebook in {folder}: name the folder that pytest was given.")
    cells = {dotted: _code_cells(folder / name) for dotted, name in names.items()}
    grades = {dotted: grade(cells[dotted] or [], outcomes[start + dotted]) for dotted in names}
    numbers = sorted({number for row in grades.values() for number in row}, key=lambda n: [*map(int, n.split("."))])
    absent = {dotted: "unreadable" if cells[dotted] is None else "missing" for dotted in names}
    rows = [[names[dotted], *(row.get(n, absent[dotted]) for n in numbers)] for dotted, row in grades.items()]
    # a spreadsheet could read such a name as a formula
    return [["notebook", *numbers], *([name if name[0].isalnum() else f"./{name}", *row] for name, *row in rows)]


def _notebooks(folder):
    """Return {path with dots: path} of a folder's notebooks, without hidden ones and the copies that Jupyter keeps."""
    names = {}
    for path in sorted(folder.rglob("*.ipynb")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not re.search(r"(^|/)\.", name):
            if not name.isprintable():
                raise ValueError(f"{name!r} has characters that no report holds: rename it, and run pytest again.")
            other = names.setdefault(_dotted(name), name)
            if other != name:
                raise ValueError(f"{other} and {name} are one name in the report: rename one, and run pytest again.")
    return names


def _code_cells(path):
    """Return the texts of a notebook's code cells; None if the file is not a notebook."""
    try:
        return ["".join(cell.source) for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    except Exception:
        return None


def main(arguments):
    if len(arguments) != 2:
        print("usage: python -m vae_tutorial.authoring.grade report.xml submissions > grades.csv", file=sys.stderr)
        return 2
    try:
        rows = table(arguments[0], Path(arguments[1]))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # names in any script, on Windows too
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
