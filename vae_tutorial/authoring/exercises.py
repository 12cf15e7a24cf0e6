"""Make the exercise notebooks from the solution notebooks: marked code becomes blanks, with a folded solution below.

An exercise is three cells in a row: code with markers, lines like name = check("1.2", name), and a markdown cell that
starts with <details> and holds the hint. The markers are comments. They are allowed inside functions only:

    y = f(x)  # (B, D)  # SOLUTION      an assignment or a return on one line; becomes y = ...  # (B, D)
    # BEGIN SOLUTION, # END SOLUTION    on lines of their own around whole statements; become one line with a blank
"""

import argparse
import ast
import copy
import difflib
import io
import json
import os
import re
import shlex
import sys
import tokenize
from contextlib import suppress
from pathlib import Path

import nbformat

SOLUTIONS = Path(__file__).resolve().parents[2] / "notebooks" / "solutions"
MARKERS = LINE, BEGIN, END = "# SOLUTION", "# BEGIN SOLUTION", "# END SOLUTION"

_HOW = f"write '{LINE}' after an assignment or a return, or '{BEGIN}' and '{END}' on lines of their own"
_SUMMARY = "<details><summary>Solution</summary>"
_CHECK = re.compile(r"""\(?(\w+(?:, \w+)*)\)? = check\('([^']+)', \1\)""")  # a check line, as ast.unparse writes it


class MarkerError(ValueError):
    """Raised for a notebook that cannot become an exercise; says where, what was found, what is allowed, what to do."""


def strip_markers(source):
    """Return a solution cell's code without its markers, as the package holds it; MarkerError for a wrong marker."""
    return _replace(source, [(where, solution) for where, solution, _ in _find_blanks(source)])


def open_blanks(source, *numbers):
    """Return a solution cell's code with its blanks open; the blank of a block names the exercise, e.g. "1.7".

    Raises MarkerError for a wrong marker, and for code that is no valid Python with its blanks open.
    """
    exercise = _replace(source, [(where, blank) for where, _, blank in _find_blanks(source, numbers)])
    _parse(exercise, "with its blanks open the code")
    return exercise


def fold_code(markdown):
    """Return the code in the folded solution that ends an exercise's markdown cell; ValueError when there is none."""
    _require_text("markdown", markdown)
    fold = re.fullmatch(r"\n\n(`+)python\n(.*)\n\1\n\n</details>", markdown.partition(_SUMMARY)[2], re.DOTALL)
    if fold is None:
        raise ValueError(f"markdown must end in a folded solution, but ends in {markdown[-40:]!r}: make it anew.")
    return fold[2]


def make_exercise(notebook, name):
    """Return the exercise notebook: the solution's cells and ids, blanks open, solutions folded, no outputs.

    notebook: a NotebookNode of format 4.5, left as it is; name: what an error calls it.
    Raises MarkerError, with name, cell (counting from 1) and line, when a cell is not of the form above.
    """
    exercise = _copy(notebook, name)
    language = exercise.metadata.get("language_info", {}).get("name", "python")
    exercise.metadata.language_info = {"name": language}  # without the Python version that ran it
    end = nbformat.v4.new_raw_cell("the end of the notebook")  # added twice, so that every cell has two after it
    for convert in _clean, _open:
        for number in range(1, len(exercise.cells) + 1):
            try:
                convert(*[*exercise.cells, end, end][number - 1 : number + 2])
            except MarkerError as error:
                raise MarkerError(f"{name}, cell {number}, {error}") from None
    return exercise


def stale_exercises(solutions):
    """Return {path: bytes} of the exercise notebooks that are missing or differ from what the solutions generate."""
    fresh = {_exercise_of(path): _render(path) for path in solutions}
    return {path: content for path, content in fresh.items() if not path.is_file() or path.read_bytes() != content}


def main(argv=None):
    """Write the exercise notebooks that are out of date, or only check them; return 0, or 1 after printing an error."""
    program = "python -m vae_tutorial.authoring.exercises"
    parser = argparse.ArgumentParser(prog=program, description=__doc__.splitlines()[0])
    parser.add_argument("solutions", nargs="*", type=Path, help="your own: solutions/a.ipynb makes exercises/a.ipynb")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when an exercise is not fresh")
    args = parser.parse_args(argv)
    try:
        stale = stale_exercises(args.solutions or own_solutions())
        if args.check and stale:
            command = shlex.join(["python", "-m", "vae_tutorial.authoring.exercises", *map(str, args.solutions)])
            raise ValueError(f"Not what the solutions give: {', '.join(map(str, stale))}. Run: {command}")
        for path, content in stale.items():
            _write(path, content)
            print(f"wrote {path}")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def own_solutions():
    """Return the paths of this repository's solution notebooks; FileNotFoundError when there is none."""
    if paths := sorted(SOLUTIONS.glob("*.ipynb")):
        return paths
    raise FileNotFoundError(f"There is no solution notebook in {SOLUTIONS}: clone the repository, or name your own.")


def _require_text(name, text):
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a text, but is {type(text).__name__}.")


def _copy(notebook, name):
    """Return a copy of a notebook; MarkerError if it is not valid or nested too deeply for Python."""
    with suppress(RecursionError, AttributeError, KeyError, TypeError, ValueError):  # nbformat's own errors
        own = isinstance(notebook, nbformat.NotebookNode) and notebook.get("nbformat_minor") == 5
        if own and nbformat.validator.isvalid(notebook, version=4, version_minor=5):
            return copy.deepcopy(notebook)
    raise MarkerError(f"{name} is no valid notebook of format 4.5, with an id for every cell: save it so.")


def _find_blanks(source, numbers=()):
    """Yield (slice of lines, lines of the solution, lines of the exercise) for every blank, from the top."""
    tree, lines, begin = _parse(source, "the code"), source.split("\n"), None
    for (line, column), marker in _find_markers(source):
        if (marker == END) == (begin is None):
            found = f"'{marker}' in the block of line {begin}" if begin else f"'{END}' without '{BEGIN}'"
            raise MarkerError(f"line {line}: found {found}: {_HOW}, neither nested nor alone.")
        if marker == LINE:
            yield _line_blank(tree, lines, line, column)
        elif marker == END:
            yield _block_blank(tree, lines, begin, line, numbers)
        begin = line if marker == BEGIN else None
    if begin:
        raise MarkerError(f"line {begin}: '{BEGIN}' is never closed: write '{END}' below it, as far indented.")


def _find_markers(source):
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        # one token may hold two comments: a shape, then a marker
        *others, last = re.split(r"\s+(?=#)", token.string.rstrip()) if token.type == tokenize.COMMENT else [""]
        misplaced = last in (BEGIN, END) and (others or token.line[: token.start[1]].strip())
        if misplaced or any(map(_is_nearly_a_marker, others if last in MARKERS else [*others, last])):
            raise MarkerError(f"line {token.start[0]}: {token.string!r} is nearly a marker: {_HOW}, or reword it.")
        if last in MARKERS:
            yield token.start, last


def _is_nearly_a_marker(comment):
    words = re.findall(r"[^\W\d_]+", re.sub("(?i)resolution", "", comment))
    alike = [w for w in words if "SOLUTION" in w.upper() or difflib.get_close_matches(w.upper(), ["SOLUTION"], 1, 0.85)]
    # a sentence may use the word "solution"; but capitals, or only one or two words, look like a marker
    return any(map(str.isupper, alike)) or (alike and len(words) <= 2) or re.match(r"#+\s*(BEGIN|END)\b", comment)


def _line_blank(tree, lines, line, column):
    code, comment = (
        lines[line - 1][:column],
        lines[line - 1][column:].rstrip().removesuffix(LINE).rstrip(),
    )
    raw = code.encode()  # the tree counts columns in bytes
    match _own_statements(tree, [code], line):
        case [ast.Return(value=ast.expr()) as statement]:
            end = statement.col_offset + len("return")
        case [ast.Assign(targets=[*_, left]) | ast.AnnAssign(annotation=left, value=ast.expr())]:
            end = raw.index(b"=", left.end_col_offset) + 1
        case _:
            raise MarkerError(
                f"line {line}: '{LINE}' needs one assignment (=) or return, whole on its line, inside a function, but "
                f"found {lines[line - 1].strip()!r}: write it so, or use '{BEGIN}' and '{END}'."
            )
    return (
        slice(line - 1, line),
        [(code + comment).rstrip()],
        [f"{raw[:end].decode()} ...  {comment}".rstrip()],
    )


def _block_blank(tree, lines, begin, end, numbers):
    block, columns = lines[begin : end - 1], {lines[line - 1].index("#") for line in (begin, end)}
    if {s.col_offset for s in _own_statements(tree, block, begin + 1)[:1]} != columns:
        found = [line.strip() for line in block if line.strip()]
        raise MarkerError(
            f"line {begin}: '{BEGIN}' and '{END}' need whole statements of a function between them, at least one, both "
            f"markers as far indented as the statements, but found {found}: move the markers."
        )
    label = " and ".join(", ".join(map(str, numbers)).rsplit(", ", 1))
    label = ("exercises " if len(numbers) > 1 else "exercise ") + label
    return (
        slice(begin - 1, end),
        block,
        [f"{lines[begin - 1].partition('#')[0]}...  # {label}: your code here"],
    )


def _own_statements(tree, text, line):
    """Return the statements in some whole lines of a cell; an empty list if they are not statements of a function."""
    functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = [s for f in functions for s in ast.walk(f) if isinstance(s, ast.stmt) and s is not f]
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        [function] = ast.parse("\n".join(["def _():", *text])).body
        first = function.body[0]
        # text that parses alone may still be a part of a larger statement, such as an element of a list
        if (first.lineno + line - 2, first.col_offset) in [(s.lineno, s.col_offset) for s in inside]:
            return function.body
    return []


def _parse(source, what):
    _require_text("source", source)
    if "\r" in source:
        raise MarkerError(f"line 1: {what} has carriage returns: end every line with a newline alone.")
    try:
        compile(source, "a cell", "exec", dont_inherit=True)
        return ast.parse(source)
    except (RecursionError, MemoryError):  # Python's own limits
        raise MarkerError(f"line 1: {what} is nested too deeply for Python: split it into statements.") from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        found = source.split("\n")[line - 1].strip()
        raise MarkerError(f"line {line}: {what} is no valid Python ({error.args[0]}): mend {found!r}.") from None


def _replace(source, edits):
    lines = source.split("\n")
    for where, text in reversed(edits):
        lines[where] = text
    return "\n".join(lines)


def _clean(cell, *_):
    cell.source = "".join(cell.source).replace("\r\n", "\n").replace("\r", "\n")
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("execution", None)  # the time it took
        tags = [tag for tag in cell.metadata.pop("tags", []) if tag != "nbval-check-output"]
        cell.metadata.update({"tags": tags} if tags else {})
        _parse(cell.source, "the code")


def _open(cell, check, fold):
    blanks = list(_find_blanks(cell.source)) if cell.cell_type == "code" else []
    if not blanks:
        return
    numbers = _exercise_numbers(check)
    if not numbers or not _is_hint(fold):
        below = [follower.source.split("\n")[0] for follower in (check, fold)]
        raise MarkerError(
            f"line {blanks[0][0].start + 1}: the two cells below a blank must be code with nothing but lines like "
            f'name = check("1.2", name), and markdown that starts with <details>, closes it and holds no solution; '
            f"found {below}: add or mend them."
        )
    solution, cell.source = strip_markers(cell.source), open_blanks(cell.source, *numbers)
    fence = max(["``", *re.findall("`+", solution)], key=len) + "`"  # longer than any in the solution
    fold.source = f"{fold.source.rstrip()}\n\n{_SUMMARY}\n\n{fence}python\n{solution}\n{fence}\n\n</details>"


def _exercise_numbers(cell):
    body = ast.parse(cell.source).body if cell.cell_type == "code" else []
    with suppress(RecursionError):  # code nested so deeply is no check
        matches = [_CHECK.fullmatch(ast.unparse(statement)) for statement in body]
        return [match[2] for match in matches] if all(matches) else []
    return []


def _is_hint(cell):
    text = cell.source if cell.cell_type == "markdown" else ""
    is_closed = text.count("<details") == text.count("</details>")
    return text.startswith("<details>") and is_closed and "<summary>Solution" not in text


def _exercise_of(path):
    """Return the path of the exercise: beside the named folder. Symbolic links are not followed."""
    solution = Path(os.path.abspath(path))
    if (solution.parent.name, solution.suffix) != ("solutions", ".ipynb"):
        raise ValueError(f"{path} is no solution notebook: name one that lies in a folder solutions, as a.ipynb.")
    return solution.parent.with_name("exercises") / solution.name


def _render(path):
    try:
        notebook = nbformat.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no notebook ({error}): name an .ipynb file.") from None
    return f"{nbformat.writes(make_exercise(notebook, path)).rstrip()}\n".encode()


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
