"""The README: every command in it is run or collected, here or by .ci/run, and every file it names exists."""

import contextlib
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

from vae_tutorial import exercises

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def commands(language):
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def readme_command(text):
    """The last command of the line of the README that holds the text, with its environment, to be run as it is here."""
    (part,) = {line.split(" && ")[-1] for line in commands("sh") if text in line}
    words = shlex.split(part)
    settings = dict(word.split("=") for word in words if word.startswith("VAE_TUTORIAL_"))
    program, *rest = words[len(settings) :]
    return [str(BIN / Path(program).name), *rest], {**os.environ, **settings}


def last_part(text):
    return readme_command(text)[0]


def test_continuous_integration_runs_the_test_command():
    (line,) = {line for line in commands("sh") if line.endswith("pytest")}
    assert line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -e ")


def test_the_first_command_leaves_a_page_that_needs_no_other_file(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", "1")
    command = last_part("--to html")
    subprocess.run([*command, "--output-dir", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    page = (tmp_path / "01_vae.html").read_text(encoding="utf-8")
    sources = re.findall(r'<img[^>]*src="([^"]{0,20})', page)
    assert len(sources) > 10 and all(source.startswith("data:image/") for source in sources)
    assert "10 of 10 exercises done" in page and page.count("held-out total") >= 5


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


def test_the_instructor_can_run_a_solution_in_place(tmp_path):
    *command, name = last_part("--inplace")
    notebook = tmp_path / Path(name).name
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1 + 1)")]), notebook)
    subprocess.run([*command, str(notebook)], cwd=ROOT, check=True, capture_output=True)
    assert nbformat.read(notebook, 4).cells[0].outputs[0].text == "2\n"
    assert (ROOT / name).exists()


def test_the_generator_finds_every_exercise_fresh():
    subprocess.run([*last_part("vae_tutorial.exercises"), "--check"], cwd=ROOT, check=True)


def test_the_wheel_carries_the_digits(tmp_path):
    wheel = re.search(r"`pip (wheel --no-deps \.)`", README)[1].split()
    pip = [sys.executable, "-m", "pip", *wheel, "--no-build-isolation", "--wheel-dir", str(tmp_path / "dist")]
    subprocess.run(pip, cwd=ROOT, check=True, capture_output=True)
    (built,) = (tmp_path / "dist").iterdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "site"), str(built)]
    subprocess.run(install, check=True, capture_output=True)
    code = "import vae_tutorial.data as d; print(d.__file__, len(d.load_images().train_images), sep=chr(10))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(tmp_path / "site" / "vae_tutorial" / "data.py"), "4000"], done.stderr


@pytest.mark.parametrize("text", ["python -m vae_tutorial --folder", "torchrun"])
def test_a_run_without_a_notebook_leaves_its_files(text, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_EPOCHS", "1")
    monkeypatch.setenv("USE_LIBUV", "0" if os.name == "nt" else "1")
    *command, folder = last_part(text)
    subprocess.run([*command, folder], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / folder / "checkpoint.pt").exists()


@pytest.mark.parametrize("line", [line for line in commands("sh") if re.search(r"pytest (tests|notebooks)/", line)])
def test_what_a_contributor_runs_exists(line):
    command = [str(BIN / "pytest"), *shlex.split(line)[1:], "-n", "0", "--collect-only", "-q"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_every_command_is_run_somewhere():
    tested = ("pytest", "--to html", "jupyter lab", "--inplace", "vae_tutorial.exercises", "vae_tutorial.checks")
    tested += ("python -m vae_tutorial --folder", "torchrun")
    assert commands("sh") and all(any(text in line for text in tested) for line in commands("sh"))


def test_windows_has_the_same_commands():
    parts = {part for line in commands("sh") for part in line.split(" && ") if "venv" in part}
    wanted = {part.replace("python3 ", "py ").replace(".venv/bin/", ".venv\\Scripts\\") for part in parts}
    assert set(commands("powershell")) <= wanted and len(commands("powershell")) == 6


def own_exercise(folder):
    """Write what the README says about an exercise of one's own; return the path of its solution notebook."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code, check, module = [textwrap.dedent(block).strip() for block in blocks]
    cells = [nbformat.v4.new_code_cell(text) for text in ("import torch\nfrom activations import check", code, check)]
    cells.append(nbformat.v4.new_markdown_cell("<details><summary>Hint</summary>\n\nA hint.\n\n</details>"))
    (folder / "solutions").mkdir()
    (folder / "solutions" / "activations.py").write_text(module)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "solutions" / "activations.ipynb")
    return folder / "solutions" / "activations.ipynb"


@pytest.mark.parametrize(
    "right, wrong, seen",
    [
        ("", "", "1.1 done: softplus."),
        ("torch.logaddexp(x, torch.zeros_like(x))", "...", "1.1 open: the blank is still to fill (the returned value)"),
        ("torch.logaddexp(x, torch.zeros_like(x))", "x.exp().log()", "1.1 wrong: Without the 1"),
        ("torch.logaddexp(x, torch.zeros_like(x))", "(1 + x.exp()).log()", "1.1 wrong: For large x it overflows"),
    ],
)
def test_an_exercise_of_ones_own_works_as_described(tmp_path, right, wrong, seen):
    path = own_exercise(tmp_path)
    assert exercises.main([str(path)]) == 0 and (tmp_path / "exercises" / "activations.ipynb").exists()
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = exercises.strip_markers(notebook.cells[1].source).replace(right, wrong)
    client = NotebookClient(
        notebook, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": path.parent}}
    )
    client.execute()
    (output,) = notebook.cells[2].outputs
    assert seen in (output.data["text/plain"] if "data" in output else "\n".join(output.traceback))


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_inside_the_repository_leads_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).exists()


def test_the_map_names_what_exists():
    (tree,) = re.findall(r"```\n(notebooks/.*?)```", README, re.DOTALL)
    assert all((ROOT / line.split()[0]).exists() for line in tree.strip().splitlines())
