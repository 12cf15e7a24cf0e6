"""The lesson in a real browser, cut off from the network: an exercise in JupyterLab, and the exported pages."""

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
import urllib.request
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageColor

from vae_tutorial import plots
from vae_tutorial.checks import COLOURS

playwright = pytest.importorskip("playwright.sync_api", reason='no Playwright: pip install -e ".[test]"')
expect = playwright.expect

ROOT = Path(__file__).parent.parent
PATIENCE = 300_000  # milliseconds, for whatever a page must show: a timed test is a test of the machine
# where there are pictures, and all of them are loaded
ALL_PICTURES = "at => (all => all.length && all.every(img => img.naturalWidth))([...document.querySelectorAll(at)])"
WRONG, RIGHT = "return -0.5 * (1 + logvar - mu - logvar.exp())", "return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())"
expect.set_options(timeout=PATIENCE)
# the other blanks of exercise 1.1, and what is written there
REST = {
    "return ...": "return F.mse_loss(recon, x)",
    "kl = ...": "kl = kl_divergence(mu, logvar).mean()",
    "loss = ...": "loss = mse + beta * kl",
}


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, or one of its kin."""
    names = ["chromium", "chromium-browser", "google-chrome", "chrome"]
    found = next(filter(None, map(shutil.which, names)), None)
    choices = [{"executable_path": found}] if found else [{}, {"channel": "chrome"}, {"channel": "msedge"}]
    root = getattr(os, "geteuid", lambda: 1)() == 0  # Chromium's sandbox refuses root
    with playwright.sync_playwright() as starter:
        for choice in choices:
            try:
                chromium = starter.chromium.launch(args=["--no-sandbox"] * root, timeout=PATIENCE, **choice)
            except playwright.Error:
                if found:
                    raise
            else:
                yield chromium
                return chromium.close()
        pytest.skip("no Chromium: install your system's `chromium`, or run `playwright install chromium`")


@contextlib.contextmanager
def open_page(browser, folder):
    """A page without a network; what it showed when a test failed is kept as a picture in the folder."""
    with browser.new_context(viewport={"width": 1280, "height": 1600}) as context:
        context.set_default_timeout(PATIENCE)
        context.route(re.compile(r"^(?!file:|http://127\.0\.0\.1)"), lambda route: route.abort())
        page = context.new_page()
        try:
            yield page
        except Exception as error:
            page.screenshot(path=folder / "failed.png")
            raise AssertionError(f"{error}\nWhat the page showed: {folder / 'failed.png'}") from error


@contextlib.contextmanager
def jupyterlab(notebook):
    """The address of the notebook in a JupyterLab that keeps its settings, and its log, beside the notebook."""
    log = notebook.with_suffix(".log")
    options = "--no-browser --port=0 --allow-root --IdentityProvider.token=t --LabApp.expose_app_in_browser=True"
    command = [sys.executable, "-m", "jupyterlab", str(notebook), *options.split()]
    settings = {"JUPYTER_CONFIG_DIR": str(notebook.parent / "settings"), "VAE_TUTORIAL_EPOCHS": "1"}
    with log.open("w") as stderr:
        server = subprocess.Popen(command, cwd=notebook.parent, stderr=stderr, env={**os.environ, **settings})
    try:
        address = address_in(log)
        yield f"{address}/lab/tree/{notebook.name}?token=t"
    finally:
        with contextlib.suppress(Exception):  # asked to, the server ends its kernels too, on every platform
            urllib.request.urlopen(urllib.request.Request(f"{address}/api/shutdown?token=t", method="POST"), timeout=60)
            server.wait(timeout=60)
        server.kill()
        server.wait()


def address_in(log):
    """Wait for the address that JupyterLab logs."""
    for _ in range(PATIENCE // 100):
        text = log.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"http://127\.0\.0\.1:\d+", text):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start: {text}")


def show_cell(page, cell_id):
    """Bring a cell of the notebook into view, and return it."""
    page.evaluate(
        """async id => {
            const notebook = jupyterapp.shell.currentWidget.content;
            const index = notebook.widgets.findIndex(cell => cell.model.id == id);
            notebook.widgets[index].node.dataset.cell = id;
            await notebook.scrollToItem(index);
        }""",
        cell_id,
    )
    return page.locator(f"[data-cell='{cell_id}']")


def write(page, old, new):
    """Write over the first line of exercise 1.1 that holds the old text, on the keyboard."""
    show_cell(page, "loss").locator(".cm-line", has_text=old).first.click()
    for key in ("End", "Shift+Home"):
        page.keyboard.press(key)
    page.keyboard.type(new)


def run(page, *cell_ids):
    """Run cells on the keyboard; return what stands below the last."""
    for cell_id in cell_ids:
        cell = show_cell(page, cell_id)
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
    return cell.locator(".jp-OutputArea-output")


def expect_card(output, state, text):
    """Wait for a card with the text and the colour of the state."""
    card = output.locator("div[style*=border-left]")
    expect(card).to_have_text(re.compile(text))
    expect(card).to_have_css("border-left-color", "rgb({}, {}, {})".format(*ImageColor.getrgb(COLOURS[state])))
    expect(card).to_be_visible()


def test_an_exercise_in_jupyterlab_is_open_then_wrong_then_done(browser, tmp_path):
    notebook = shutil.copy(ROOT / "notebooks" / "exercises" / "01_vae.ipynb", tmp_path)
    with jupyterlab(Path(notebook)) as address, open_page(browser, tmp_path) as page:
        page.goto(address)
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.ready")
        expect(show_cell(page, "kl-1").locator("mjx-container").first).to_be_visible()
        expect(page.locator("[data-mjx-error]")).to_have_count(0)
        page.wait_for_function(ALL_PICTURES, arg=".jp-MarkdownCell img")
        page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        expect_card(show_cell(page, "summary"), "open", "^1.1 open: the loss.*0 of 10 exercises done")
        expect_card(show_cell(page, "check-1-1"), "open", "^1.1 open: 4 of 4 blanks are still to fill")
        write(page, "return ...", WRONG)
        for old, new in REST.items():
            write(page, old, new)
        output = run(page, "loss", "check-1-1")
        expect(output).to_contain_text("1.1 wrong: mu enters as mu")
        expect(output).to_have_css("background-color", "rgb(255, 221, 221)")
        write(page, WRONG, RIGHT)
        expect_card(run(page, "loss", "check-1-1"), "done", "^1.1 done: the loss.$")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder with two of the solution notebooks as pages, made from what is stored in them."""
    folder, solutions = tmp_path_factory.mktemp("exports"), ROOT / "notebooks" / "solutions"
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(folder)]
    notebooks = [str(solutions / f"{name}.ipynb") for name in ("01_vae", "03_latent_space")]
    subprocess.run([*command, *notebooks], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["01_vae", "03_latent_space"])
def test_an_exported_page_shows_its_pictures_without_a_network(exports, browser, tmp_path, name):
    with open_page(browser, tmp_path) as page:
        page.goto((exports / f"{name}.html").as_uri())
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
    with open_page(browser, tmp_path) as page:
        page.goto((exports / "03_latent_space.html").as_uri())
        explorer = page.locator("div:has(> img[onload])").nth(index)
        across, along = explorer.get_by_role("slider").all()
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
        box = explorer.locator("> img").bounding_box()
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        assert chosen(explorer) == home  # no button is down
        page.mouse.down()
        assert chosen(explorer) == (0, 0)
        page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5)
        page.mouse.up()
        assert chosen(explorer) == last


def test_the_explorers_of_an_exported_page_are_those_that_the_package_draws(exports):
    page = html.unescape((exports / "03_latent_space.html").read_text(encoding="utf-8"))
    assert [page.count(part) for part in plots.SLIDERS.strip().split("SETTINGS")] == [2, 2]
