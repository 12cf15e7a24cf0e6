"""The pages: every command in them is run or collected, every link leads somewhere, the map names what exists."""

import ast
import contextlib
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from vae_tutorial.authoring import exercises
from vae_tutorial.checks import engine
from vae_tutorial.checks.vae import check as check_of_01

ROOT = Path(__file__).parent.parent
NAMES = ["README.md", "CONTRIBUTING.md", "notebooks/INSTRUCTORS.md", "tests/benchmarks/README.md", "data/README.md"]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
README, CONTRIBUTING, INSTRUCTORS, *_ = PAGES.values()
BIN = Path(sys.executable).parent


def commands(text, language="sh"):
    """The lines of a text's blocks in a language, but those for docker, which test_classroom.py runs without it."""
    blocks = re.findall(rf"^ *```{language}\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks if not block.startswith("docker") for line in block.strip().splitlines()]


COMMANDS = commands(README) + commands(CONTRIBUTING) + commands(INSTRUCTORS)


def readme_command(text):
    """The last command of the line of the pages that holds the text, with its environment, to be run as it is here."""
    (part,) = {line.split(" && ")[-1] for line in COMMANDS if text in line}
    words = shlex.split(part)
    settings = dict(word.split("=") for word in words if word.startswith("VAE_TUTORIAL_"))
    program, *rest = words[len(settings) :]
    return [str(BIN / Path(program).name), *rest], {**os.environ, **settings}


def last_part(text):
    return readme_command(text)[0]


def test_the_readme_fits_two_screens():
    assert len(README.splitlines()) <= 120


def test_continuous_integration_runs_both_test_commands():
    (quick,) = {line for line in COMMANDS if line.startswith("python3") and line.endswith("pytest")}
    (slow,) = {line for line in COMMANDS if line.endswith("pytest -m slow")}
    assert {quick, slow} <= set((ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines())


def test_each_line_of_the_readme_does_all_of_its_setup():
    lines = [line for line in commands(README) if " && " in line]
    assert len(lines) == 3
    assert all(line.startswith("python3 -m venv .venv && .venv/bin/pip install -e ") for line in lines)


def test_windows_has_the_same_commands():
    parts = {part for line in commands(README) if " && " in line for part in line.split(" && ")}
    wanted = {part.replace("python3 ", "py ").replace(".venv/bin/", ".venv\\Scripts\\") for part in parts}
    assert set(commands(README, "powershell")) == wanted


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    targets = re.findall(r"\]\(([^)#]+)", PAGES[name])
    files = [target for target in targets if not target.startswith("https://")]
    assert files and not [file for file in files if not (ROOT / name).parent.joinpath(file).exists()]


def test_the_map_names_what_exists_and_every_module():
    (tree,) = re.findall(r"^```\n(notebooks/.*?)```", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    named = {ROOT / line.split()[0] for line in tree.splitlines()}
    assert not [path for path in named if not path.exists()]
    assert {path for path in (ROOT / "vae_tutorial").glob("*.py") if path.name != "__init__.py"} <= named


# every command


def test_every_command_is_run_somewhere():
    run = ("pytest", "--to html", "jupyter lab", "--inplace", "vae_tutorial.authoring", "pip wheel")
    run += ("python -m vae_tutorial --folder", "torchrun")
    assert COMMANDS and not [line for line in COMMANDS if not any(text in line for text in run)]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in COMMANDS if re.search(r"pytest .*(tests|notebooks)/", line)])
def test_what_a_contributor_runs_exists(line):
    command = [str(BIN / "pytest"), *shlex.split(line)[1:], "-n", "0", "--collect-only", "-q"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_the_generator_finds_every_exercise_fresh():
    subprocess.run([*last_part("vae_tutorial.authoring.exercises"), "--check"], cwd=ROOT, check=True)


@pytest.mark.slow
def test_the_page_to_see_needs_no_other_file(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", "1")
    subprocess.run([*last_part("--to html"), "--output-dir", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    page = (tmp_path / "01_vae.html").read_text(encoding="utf-8")
    sources = re.findall(r'<img[^>]*src="([^"]{0,20})', page)
    assert len(sources) > 10 and all(source.startswith("data:image/") for source in sources)
    assert "10 of 10 exercises done" in page and page.count("held-out total") >= 5


@pytest.mark.slow
def test_jupyterlab_opens_the_exercise():
    command = [*last_part("jupyter lab"), "--no-browser", "--port=0", "--allow-root", "--IdentityProvider.token=t"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://127[^/]+", line)))
            assert answer(f"{address}/api/contents/01_vae.ipynb?content=0&token=t") == 200
            assert answer(f"{address}/lab/tree/01_vae.ipynb?token=t") == 200
        finally:
            server.terminate()


def answer(url, patience=30):
    """The status of a page, of a server that may still be starting."""
    for _ in range(patience):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=60).status
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["python -m vae_tutorial --folder", "torchrun"])
def test_a_run_without_a_notebook_leaves_its_files(text, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", "1")
    monkeypatch.setenv("USE_LIBUV", "0" if os.name == "nt" else "1")
    *command, folder = last_part(text)
    subprocess.run([*command, folder], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / folder / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_solution_can_be_run_in_place(tmp_path):
    *command, name = last_part("--inplace")
    notebook = tmp_path / Path(name).name
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1 + 1)")]), notebook)
    subprocess.run([*command, str(notebook)], cwd=ROOT, check=True, capture_output=True)
    assert nbformat.read(notebook, 4).cells[0].outputs[0].text == "2\n"
    assert (ROOT / name).exists()


@pytest.mark.slow
def test_the_wheel_carries_the_digits_and_the_explorer(tmp_path):
    wheel = [*last_part("pip wheel"), "--no-build-isolation", "--wheel-dir", str(tmp_path / "dist")]
    subprocess.run(wheel, cwd=ROOT, check=True, capture_output=True)
    (built,) = (tmp_path / "dist").iterdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "site"), str(built)]
    subprocess.run(install, check=True, capture_output=True)
    code = "import vae_tutorial.data as d; print(d.__file__, len(d.load_images().train_images), sep=chr(10))\n"
    code += "import vae_tutorial.plots as p; print('const map' in p.SLIDERS)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    wanted = [str(tmp_path / "site" / "vae_tutorial" / "data.py"), "4000", "True"]
    assert done.stdout.splitlines() == wanted, done.stderr


# a mistake and an exercise of one's own


def test_a_line_in_a_table_names_a_mistake_as_described():
    (row,) = ast.literal_eval(re.search(r"```python\n(\(.*?\),)\n```", CONTRIBUTING, re.DOTALL)[1])
    (lesson,) = check_of_01.exercises["1.4"].lessons
    assert row not in lesson.rows and "DRAW_ROWS" in CONTRIBUTING
    wrong = engine.edited(lesson.finished, row)
    with pytest.raises(engine.Wrong) as unnamed:
        engine.judge(lesson, wrong, {})
    with pytest.raises(engine.Wrong) as named:
        engine.judge(dataclasses.replace(lesson, rows=(*lesson.rows, row)), wrong, {})
    assert row[2] not in str(unnamed.value) and str(named.value) == row[2]


def own_exercise(folder):
    """Write what CONTRIBUTING.md says about an exercise of one's own; return the path of its solution notebook."""
    blocks = re.findall(r"^ *```python\n(.*?)```", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    _, code, check, module = [textwrap.dedent(block).strip() for block in blocks]
    cells = [nbformat.v4.new_code_cell(text) for text in ("import torch\nfrom activations import check", code, check)]
    cells.append(nbformat.v4.new_markdown_cell("<details><summary>Hint</summary>\n\nA hint.\n\n</details>"))
    (folder / "solutions").mkdir()
    (folder / "solutions" / "activations.py").write_text(module)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "solutions" / "activations.ipynb")
    return folder / "solutions" / "activations.ipynb"


@pytest.mark.slow
@pytest.mark.parametrize(
    "right, wrong, seen",
    [
        ("", "", "1.1 done: softplus."),
        ("torch.logaddexp(x, torch.zeros_like(x))", "...", "1.1 open: still to fill: the returned value."),
        ("torch.logaddexp(x, torch.zeros_like(x))", "x.exp().log()", "1.1 wrong: Without the 1"),
        ("torch.logaddexp(x, torch.zeros_like(x))", "(1 + x.exp()).log()", "1.1 wrong: For large x it overflows"),
    ],
)
def test_an_exercise_of_ones_own_works_as_described(tmp_path, right, wrong, seen):
    path = own_exercise(tmp_path)
    assert exercises.main([str(path)]) == 0 and (tmp_path / "exercises" / "activations.ipynb").exists()
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = exercises.strip_markers(notebook.cells[1].source).replace(right, wrong)
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, kernel_name="python3", allow_errors=True, resources=resources).execute()
    (output,) = notebook.cells[2].outputs
    assert seen in (output.data["text/plain"] if "data" in output else "\n".join(output.traceback))
