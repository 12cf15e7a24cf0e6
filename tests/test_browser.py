"""The lesson in a real browser without a network: an exercise in JupyterLab, and the exported pages."""

import base64
import contextlib
import html
import io
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from PIL import Image, ImageChops, ImageColor

from vae_tutorial import plots
from vae_tutorial.checks import COLOURS

playwright = pytest.importorskip("playwright.sync_api", reason='no Playwright: pip install -e ".[test]"')
expect = playwright.expect
pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
START, WAIT = 90, 30  # seconds: for a program to start or a kernel to import PyTorch, and for all else
expect.set_options(timeout=1000 * WAIT)
# where there are pictures, and all of them are loaded
ALL_PICTURES = "at => (all => all.length && all.every(img => img.naturalWidth))([...document.querySelectorAll(at)])"
# a formula that is still in its dollar signs
NOT_TYPESET = "//*[contains(@class, 'RenderedMarkdown')]//*[text()[contains(., '$')] and not(ancestor-or-self::code)]"
# the notebook is open, and its kernel is waiting
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
NAME_CELLS = "for (const cell of jupyterapp.shell.currentWidget.content.widgets) cell.node.dataset.id = cell.model.id"
WRITE = """([id, text]) => jupyterapp.shell.currentWidget.content.widgets
    .find(cell => cell.model.id == id).model.sharedModel.setSource(text)"""
RUN = """id => {
    const notebook = jupyterapp.shell.currentWidget.content;
    notebook.deselectAll();
    notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.id == id);
    void jupyterapp.commands.execute('notebook:run-cell');
}"""
# a pointer over a picture, at shares of its width and height; whatever lies on top there gets the event
POINT = """(picture, [type, buttons, across, down]) => {
    picture.scrollIntoView({behavior: 'instant', block: 'center'});
    const {left, top, width, height} = picture.getBoundingClientRect();
    const [clientX, clientY] = [left + across * width, top + down * height];
    document.elementFromPoint(clientX, clientY)
        .dispatchEvent(new PointerEvent(type, {clientX, clientY, buttons, bubbles: true}));
}"""


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium or Chrome; else Playwright's own."""
    found = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
    with playwright.sync_playwright() as starter:
        try:
            chromium = starter.chromium.launch(executable_path=found, timeout=1000 * START)
        except playwright.Error:
            if found:
                raise
            pytest.skip("no Chromium: install your system's `chromium`, or run `playwright install chromium`")
        yield chromium
        chromium.close()


@contextlib.contextmanager
def open_page(browser, folder, address):
    """A page without a network. If a test fails, its message tells what the page showed; the folder has a picture."""
    with browser.new_context(viewport={"width": 1280, "height": 1600}) as context:
        context.set_default_timeout(1000 * WAIT)
        context.route(re.compile(r"^(?!file:|http://127\.0\.0\.1)"), lambda route: route.abort())
        page = context.new_page()
        try:
            page.goto(address, timeout=1000 * START)
            yield page
        except Exception as error:
            page.screenshot(path=folder / "failed.png")
            text = " ".join(page.locator("body").inner_text().split())
            broken = page.evaluate("[...document.images].filter(img => !img.naturalWidth).map(img => img.alt)")
            shown = f"{text[:1000]} ... {text[-1000:]}\nPictures that are not loaded: {broken}"
            raise AssertionError(f"{error}\nThe page, also in {folder / 'failed.png'}: {shown}") from error


@contextlib.contextmanager
def jupyterlab(notebook):
    """The address of the notebook in a JupyterLab that keeps its settings, and its log, beside the notebook."""
    log = notebook.with_suffix(".log")
    options = "--no-browser --port=0 --allow-root --IdentityProvider.token=t --LabApp.expose_app_in_browser=True"
    command = [sys.executable, "-m", "jupyterlab", str(notebook), *options.split()]
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(notebook.parent / "settings")}
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr, env=environment) as server:
        try:
            yield f"{address_in(log, server)}/lab/tree/{notebook.name}?token=t"
        finally:
            server.terminate()  # and it ends its kernels
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=WAIT)
            server.kill()
            print("The log of JupyterLab:", log.read_text(encoding="utf-8", errors="replace"))


def address_in(log, server):
    """Wait for the address that JupyterLab logs as soon as it listens."""
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8", errors="replace")):
            return found[0]
        time.sleep(0.1)
    raise AssertionError("JupyterLab did not start: see its log.")


def run(page, *ids):
    """Run cells one after the other; return what stands below the last."""
    for cell in ids:
        page.evaluate(RUN, cell)
    return page.locator(f"[data-id='{ids[-1]}'] .jp-OutputArea-output")


def expect_card(output, state, text):
    """Wait for a card with the text and the colour of the state."""
    card = output.locator("div[style*=border-left]")
    expect(card).to_have_text(re.compile(text))
    expect(card).to_have_css("border-left-color", "rgb({}, {}, {})".format(*ImageColor.getrgb(COLOURS[state])))
    expect(card).to_be_visible()


def test_an_exercise_in_jupyterlab_is_open_then_wrong_then_done(browser, tmp_path):
    notebook = Path(shutil.copy(NOTEBOOKS / "exercises" / "01_vae.ipynb", tmp_path))
    cells = {cell.id: cell for cell in nbformat.read(notebook, as_version=4).cells}
    right = cells["hint-1-1"].source.partition("```python\n")[2].partition("\n```")[0]  # the folded solution
    wrong = right.replace("mu.pow(2)", "mu")
    assert wrong != right
    with jupyterlab(notebook) as address, open_page(browser, tmp_path, address) as page:
        page.wait_for_function(READY, timeout=1000 * START)
        page.evaluate(NAME_CELLS)
        for name, cell in cells.items():
            if cell.cell_type == "markdown" and "$" in cell.source:
                expect(page.locator(f"[data-id='{name}'] mjx-container")).not_to_have_count(0)
            if "attachments" in cell:
                page.wait_for_function(ALL_PICTURES, arg=f"[data-id='{name}'] img")
        expect(page.locator("[data-mjx-error], [mathcolor=red]")).to_have_count(0)  # red: unknown to MathJax
        expect(page.locator(NOT_TYPESET)).to_have_count(0)
        output = run(page, "imports")
        expect(page.locator("[data-id=imports] .jp-InputPrompt")).to_have_text("[1]:", timeout=1000 * START)
        expect(output).to_have_count(0)
        expect_card(run(page, "loss", "check-1-1"), "open", "^1.1 open: still to fill: the returned value")
        expect_card(run(page, "summary"), "open", r"^1.1 open: the loss.*\D0 of \d+ exercises done")
        page.evaluate(WRITE, ["loss", wrong])
        output = run(page, "loss", "check-1-1")
        expect(output).to_have_text(re.compile("^1.1 wrong: mu enters as mu, "))
        expect(output).not_to_have_text(re.compile("Traceback|-->|File "))
        expect(output).to_have_css("background-color", "rgb(255, 221, 221)")  # JupyterLab's own, of errors
        page.evaluate(WRITE, ["loss", right])
        expect_card(run(page, "loss", "check-1-1"), "done", "^1.1 done: the loss.$")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder with two of the solution notebooks as pages, made from what is stored in them."""
    folder = tmp_path_factory.mktemp("exports")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(folder)]
    notebooks = [str(NOTEBOOKS / "solutions" / f"{name}.ipynb") for name in ("01_vae", "03_latent_space")]
    subprocess.run([*command, *notebooks], check=True, capture_output=True, timeout=START)
    return folder


@pytest.mark.parametrize("name", ["01_vae", "03_latent_space"])
def test_an_exported_page_shows_its_pictures_without_a_network(exports, browser, tmp_path, name):
    with open_page(browser, tmp_path, (exports / f"{name}.html").as_uri()) as page:
        page.wait_for_function(ALL_PICTURES, arg="img")
        summary = page.locator("div[style*=border-left]").last
        expect_card(summary.locator(".."), "done", r"(\d+) of \1 exercises done")


def chosen(explorer):
    """Return the place, as (column, row), that an explorer frames, once the large image was seen to show it."""
    frame, view = explorer.locator("> div").first, explorer.get_by_role("img", name=" = ")
    shares = "({style}) => [style.left, style.width, style.top, style.height].map(parseFloat)"
    left, width, top, height = frame.evaluate(shares)
    column, row = round(left / width), round(top / height)
    data = explorer.locator("> img").get_attribute("src").partition("base64,")[2]
    tile = (32 * column, 32 * row, 32 * column + 32, 32 * row + 32)
    wanted = Image.open(io.BytesIO(base64.b64decode(data))).convert("L").crop(tile)
    shown = Image.open(io.BytesIO(view.screenshot())).convert("L").resize((32, 32), Image.Resampling.NEAREST)
    assert ImageChops.difference(wanted, shown).getextrema()[1] <= 2  # colour management may round
    return column, row


@pytest.mark.parametrize("index, upward", [(0, True), (1, False)])
def test_the_explorer_moves(exports, browser, tmp_path, index, upward):
    with open_page(browser, tmp_path, (exports / "03_latent_space.html").as_uri()) as page:
        page.wait_for_function(ALL_PICTURES, arg="img")
        explorer = page.locator("div:has(> img[onload])").nth(index)
        picture, sliders = explorer.locator("> img"), explorer.get_by_role("slider")
        expect(sliders).to_have_count(2)
        across, along = sliders.all()
        column, row = chosen(explorer)
        words = explorer.locator("label").all_text_contents()
        across.press("ArrowRight")
        assert chosen(explorer) == (column + 1, row)
        along.press("ArrowRight")
        assert chosen(explorer) == (column + 1, row - 1 if upward else row + 1)
        assert not set(words) & set(explorer.locator("label").all_text_contents())
        across.press("Home")
        along.press("Home")
        last = int(across.get_attribute("max")), int(along.get_attribute("max"))
        home = (0, last[1] if upward else 0)
        assert chosen(explorer) == home
        picture.evaluate(POINT, ["pointermove", 0, 0.99, 0.5])
        assert chosen(explorer) == home  # no button is down
        picture.evaluate(POINT, ["pointerdown", 1, 0.99, 0.01])
        assert chosen(explorer) == (last[0], 0)
        picture.evaluate(POINT, ["pointermove", 1, 0.01, 0.99])
        assert chosen(explorer) == (0, last[1])
        expect(picture).to_have_attribute("draggable", "false")  # or the browser would carry the picture away


def test_the_explorers_of_an_exported_page_are_those_that_the_package_draws(exports):
    page = html.unescape((exports / "03_latent_space.html").read_text(encoding="utf-8"))
    assert [page.count(part) for part in plots.SLIDERS.strip().split("SETTINGS")] == [2, 2]
