"""The checks, held against known mistakes, each of which must be named, and against right answers of every kind.

A row of a table of the checks is a mistake and its sentence; the tables in answers/, one a notebook, hold what the
readers of the checks must name. Both are replacements in the text of the finished version. The frame that all checks
share is tested on exercises of notebook 01.
"""

import functools
import inspect
import linecache
import math
import random
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers.vae import CONV3, DRAW, KL, STD
from IPython.core.interactiveshell import InteractiveShell
from torch import nn
from torch.distributions import Normal

from vae_tutorial import checks, loss, model
from vae_tutorial.checks import engine, running
from vae_tutorial.checks import vae as checks_of_01

TABLES = [import_module(f"answers.{path.stem}") for path in sorted(Path(__file__).parent.glob("answers/*.py"))]
CHECKS = [import_module(table.__name__.replace("answers", "vae_tutorial.checks")).check for table in TABLES]
EXERCISES = {number: exercise for check in CHECKS for number, exercise in check.exercises.items()}
MISTAKES = {name: row for table in TABLES for name, row in table.MISTAKES.items()}
REMARKS = {name: row for table in TABLES for name, row in getattr(table, "REMARKS", {}).items()}
HARMLESS = {name: row for table in TABLES for name, row in table.HARMLESS.items()}
LESSONS = [(number, lesson) for number, exercise in EXERCISES.items() for lesson in exercise.lessons]
ROWS = [(number, lesson, row) for number, lesson in LESSONS for row in lesson.rows]
# what a student's cell may use beside what the finished version itself uses
NAMES = dict(torch=torch, F=F, nn=nn, math=math, Normal=Normal)


@pytest.fixture
def check():
    return checks.Check(EXERCISES)


@pytest.fixture
def check_of_01():
    return checks.Check(checks_of_01.check.exercises)


def source_of(number):
    """The text of an exercise's finished version, as a notebook's cell holds it."""
    return "\n\n".join(inspect.getsource(finished) for finished in EXERCISES[number].finished)


def answers(number, source):
    """Run a cell with the source, as IPython does: its text can be found by the name of its file."""
    file = f"<cell {number} {hash(source)}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    finished = EXERCISES[number].finished
    names = {name: value for one in finished for name, value in vars(sys.modules[one.__module__]).items()} | NAMES
    exec(compile(source, file, "exec"), names)
    return [names[one.__name__] for one in finished]


def changed(number, old, new):
    source = source_of(number)
    assert old in source
    return source.replace(old, new)


def failure(check, number, source):
    with pytest.raises(checks.CheckFailed) as failed:
        check(number, *answers(number, source))
    return str(failed.value)


@pytest.mark.parametrize("name", MISTAKES, ids=lambda name: f"{MISTAKES[name][0]} {name}")
def test_a_mistake_is_named(check, name):
    number, old, new, hint = MISTAKES[name]
    message = failure(check, number, changed(number, old, new))
    assert hint in message and "cannot be used" not in message


@pytest.mark.parametrize("number, lesson, row", ROWS, ids=lambda part: part if isinstance(part, str) else "")
def test_a_row_of_a_table_earns_its_sentence(check, number, lesson, row):
    assert row[2] in failure(check, number, changed(number, *row[:2]))


@pytest.mark.parametrize("lesson", [lesson for _, lesson in LESSONS], ids=lambda lesson: lesson.name)
def test_no_row_shows_the_same_as_another_or_as_the_finished_version(lesson):
    assert engine.faults(lesson) == []


@pytest.mark.parametrize("name", REMARKS, ids=lambda name: f"{REMARKS[name][0]} {name}")
def test_a_right_answer_that_fails_elsewhere_is_done_with_a_remark_about_its_line(check, name, capsys):
    number, old, new, hint = REMARKS[name]
    student = answers(number, changed(number, old, new))
    assert check(number, *student) is student[0] or len(student) > 1
    shown = capsys.readouterr().out
    assert check.states[number] == "done" and hint in shown and "Line " in shown


every_variant = pytest.mark.parametrize("name", HARMLESS, ids=lambda name: f"{HARMLESS[name][0]} {name}")


@every_variant
def test_a_harmless_variant_is_done_without_a_remark(check, name, capsys, seeds=(0,)):
    number, old, new = HARMLESS[name]
    student = answers(number, changed(number, old, new))
    for check.seed in seeds:
        got = check(number, *student)
        assert (list(got) if len(student) > 1 else [got]) == student
        assert capsys.readouterr().out.strip() == f"{number} done: {EXERCISES[number].title}."
    assert check.states[number] == "done"


@pytest.mark.slow
@every_variant
def test_a_harmless_variant_is_done_with_every_seed(check, name, capsys):
    test_a_harmless_variant_is_done_without_a_remark(check, name, capsys, seeds=range(1, 20))


def test_a_module_made_in_init_may_be_used_in_forward(check):
    made = "        super().__init__()\n        self.relu, self.latent_dim = nn.ReLU(), latent_dim\n"
    source = changed("1.3", "        super().__init__()\n", made).replace("F.relu(", "self.relu(")
    source = source.replace(".flatten(1)\n        return", ".view(-1, self.latent_dim)\n        return")
    (student,) = answers("1.3", source)
    assert check("1.3", student) is student


@pytest.mark.parametrize("number", EXERCISES)
def test_the_finished_version_written_out_is_done(check, number):
    check(number, *answers(number, source_of(number)))
    assert check.states[number] == "done"


# the engine: each answer by itself, families, pairs, what nobody foresaw


def test_an_answer_is_judged_without_the_students_other_answers_and_they_are_put_back(check):
    wrong = inspect.getsource(model.reparameterize).replace("mu + eps * std", "mu * 0")
    file = f"<both {hash(wrong)}>"
    names = dict(vars(model))
    exec(compile(wrong + inspect.getsource(model.VAE), file, "exec"), names)
    own = names["reparameterize"]
    assert check("1.6", names["VAE"]) is names["VAE"]
    assert names["reparameterize"] is own
    with pytest.raises(checks.CheckFailed, match="z is 0"):
        check("1.4", own)


def test_a_mistake_that_no_row_and_no_reader_knows_is_named_by_its_family():
    def observe(equivalent_beta):
        yield engine.must("equivalent_beta(0.3, 1024, 7)", equivalent_beta(0.3, 1024, 7))

    wrong = engine.edited(loss.equivalent_beta, ("beta * num_pixels", "beta / num_pixels", ""))
    with pytest.raises(engine.Wrong, match="equivalent_beta behaves as if beta and num_pixels were divided."):
        engine.judge(engine.Lesson(loss.equivalent_beta, observe), wrong, {})


def test_two_mistakes_of_the_table_at_once_are_both_named(check):
    source = changed("1.9", "one_hot.sum(dim=0)", "one_hot.mean(dim=0)")
    lesson = EXERCISES["1.9"].lessons[0]
    rows = [row for row in lesson.rows if "transposed: one" in row[2] or "the share of" in row[2]]
    both = engine.Lesson(lesson.finished, lesson.observe, tuple(rows))
    wrong = source.replace("one_hot.T @ codes / counts[:, None]", "codes.T @ one_hot / counts")
    with pytest.raises(engine.Wrong, match="transposed.* And: counts holds the share"):
        engine.judge(both, *answers("1.9", wrong), {})


def test_what_nobody_foresaw_is_told_by_value_and_expected_value(check):
    line = "(1 - t) * start + t * end"
    message = failure(check, "1.10", changed("1.10", line, "torch.cos((1 - t) * start) + t * end"))
    assert "interpolate(start, end, 5) is " in message and "is expected" in message


def test_a_row_whose_piece_does_not_occur_once_is_a_fault_of_the_table():
    for piece in ("nowhere", "mu"):
        with pytest.raises(ValueError, match="must occur once in reparameterize"):
            engine.edited(model.reparameterize, (piece, "x", "sentence"))


def test_what_comes_without_a_text_or_wrapped_is_judged_all_the_same(check):
    (student,) = answers("1.4", source_of("1.4"))
    compiled = torch.compile(student)
    assert check("1.4", compiled) is compiled
    partial = functools.partial(student)
    assert check("1.4", partial) is partial
    kl, _, vae_loss = answers("1.1", source_of("1.1"))
    with pytest.raises(checks.CheckFailed, match="put the line with assert back"):
        check("1.1", kl, nn.MSELoss(), vae_loss)


def test_float64_by_default_in_the_notebook_changes_no_verdict(check):
    for number in checks_of_01.check.exercises:
        check(number, *answers(number, source_of(number)))  # what the finished versions show is kept
    torch.set_default_dtype(torch.float64)
    try:
        for number in checks_of_01.check.exercises:
            check(number, *answers(number, source_of(number)))
            assert check.states[number] == "done"
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_variable_of_the_notebook_that_a_function_takes_for_its_own_is_named(check):
    source = "images = torch.zeros(3, 1, 32, 32)\n" + changed("1.8", "images = decoder(z)", "decoder(z)")
    assert "gives images no value of its own" in failure(check, "1.8", source)


# the frame: open, crashed, hints that grow plainer, nothing left behind


def with_blanks(number, *blanks):
    source = source_of(number)
    for old, new in blanks:
        assert old in source
        source = source.replace(old, new)
    return answers(number, source)


def test_an_open_blank_is_named_and_the_finished_version_carries_on(check, capsys):
    student = with_blanks("1.4", (f"eps = {DRAW}", "eps = ..."), ("return mu + eps * std", "return ..."))
    assert check("1.4", *student) is model.reparameterize
    wanted = "1.4 open: still to fill: eps and the returned value. The finished version fills in."
    assert wanted in capsys.readouterr().out
    assert check.states["1.4"] == "open"


def test_of_several_functions_the_full_ones_are_checked_and_the_blanks_of_the_others_named(check, capsys):
    blanks = ("return F.mse_loss(recon, x)", "return ..."), ("loss = mse + beta * kl", "loss = ...")
    student = with_blanks("1.1", *blanks)
    assert check("1.1", *student) == (student[0], loss.recon_loss, loss.vae_loss)
    assert "still to fill: the returned value of recon_loss and loss of vae_loss." in capsys.readouterr().out
    with pytest.raises(checks.CheckFailed, match="1.1 wrong: The sign is wrong"):
        check("1.1", *with_blanks("1.1", (KL, KL[1:]), ("loss = mse + beta * kl", "loss = ...")))


def test_layers_are_checked_while_forward_is_open(check):
    blank = ("return torch.tanh(self.conv4(x))", "return ...")
    with pytest.raises(checks.CheckFailed, match="self.conv1 has padding 1"):
        check("1.5", *with_blanks("1.5", blank, ("4 * width, kernel_size=4)", "4 * width, kernel_size=4, padding=1)")))


def test_an_ellipsis_in_an_index_is_no_blank(check):
    assert check("1.6", *with_blanks("1.6", ("else mu", "else mu[..., :]")))
    assert check.states["1.6"] == "done"


def test_two_exercises_of_one_class_are_told_apart(check, capsys):
    (student,) = with_blanks("1.2", (f"self.conv3 = {CONV3}", "self.conv3 = ..."))
    assert check("1.2", student) is model.Encoder
    assert check("1.3", model.Encoder) is model.Encoder
    assert check.states["1.2"] == "open" and check.states["1.3"] == "done"
    assert "self.conv3" in capsys.readouterr().out


def test_a_wrong_forward_is_seen_behind_open_layers(check):
    blank = (f"self.conv3 = {CONV3}", "self.conv3 = ...")
    (student,) = with_blanks("1.3", blank, ("return mu, logvar", "return logvar, mu"))
    encoder = check("1.2", student)
    with pytest.raises(checks.CheckFailed, match="mu is what self.conv_logvar gives"):
        check("1.3", encoder)


def test_the_finished_version_handed_in_counts_as_open(check, capsys):
    assert check("1.4", model.reparameterize) is model.reparameterize
    assert check.states["1.4"] == "open" and "not one of your own" in capsys.readouterr().out


def test_strict_makes_an_open_exercise_fail(check, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_STRICT", "1")
    with pytest.raises(checks.CheckFailed, match="1.4 open: still to fill: eps."):
        check("1.4", *with_blanks("1.4", (f"eps = {DRAW}", "eps = ...")))


def test_a_crash_names_the_line_of_the_student(check):
    message = failure(check, "1.4", changed("1.4", STD, "torch.exp(0.5 * logsigma)"))
    assert message.startswith("1.4 crashed: Line ") and "`std = torch.exp(0.5 * logsigma)`" in message
    assert "raises NameError: name 'logsigma' is not defined. Known here: mu, logvar." in message
    assert "Do you mean logvar?" in failure(check, "1.4", changed("1.4", STD, "torch.exp(0.5 * logva)"))
    assert "In plain words" not in message


def test_an_error_tells_the_shapes_of_what_its_line_names(check):
    message = failure(check, "1.4", changed("1.4", "mu + eps * std", "mu + eps[:5] * std"))
    assert "In the check, mu has shape (2048, 16), eps has shape (2048, 16), std has shape (2048, 16)." in message


def test_hints_change_and_the_third_points_to_the_solution(check):
    messages = [failure(check, "1.4", changed("1.4", STD, "torch.exp(logvar)")) for _ in range(3)]
    assert ["In plain words" in message for message in messages] == [False, True, True]
    assert ["folded solution" in message for message in messages] == [False, False, True]


def test_every_lesson_has_plainer_words_for_the_second_failure():
    assert all(lesson.reminder for _, lesson in LESSONS)


def test_a_failure_says_what_later_cells_use_and_shows_no_traceback(check):
    with pytest.raises(checks.CheckFailed) as failed:
        check("1.4", *answers("1.4", changed("1.4", STD, "torch.exp(logvar)")))
    assert failed.value._render_traceback_() == [str(failed.value)]
    assert "Until this is right, reparameterize means your version in the cells below." in str(failed.value)


def test_a_check_after_a_failure_starts_anew(check):
    failure(check, "1.4", changed("1.4", STD, "torch.exp(logvar)"))
    check("1.4", *answers("1.4", source_of("1.4")))
    assert check.states["1.4"] == "done" and check.failures["1.4"] == 0


def test_an_endless_loop_is_cut_off(check, monkeypatch):
    monkeypatch.setattr(running, "SECONDS", 0.3)
    message = failure(check, "1.4", changed("1.4", f"std = {STD}", "while True: pass"))
    assert "endless loop" in message


def test_neither_the_clock_alone_nor_the_processor_alone_cuts_an_answer_off(check, monkeypatch):
    monkeypatch.setattr(running, "SECONDS", 0.3)
    asleep = answers("1.4", changed("1.4", f"std = {STD}", f"__import__('time').sleep(0.1); std = {STD}"))
    check("1.4", *asleep)  # a second and more on the clock, as on a busy machine
    assert check.states["1.4"] == "done"
    monkeypatch.setattr(running.time, "process_time", lambda: 100 * time.monotonic())
    with running.time_limit():  # many cores at once
        time.sleep(0.2)


def test_an_answer_leaves_no_trace(check, capsys):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    meddling = "torch.manual_seed(1); random.seed(1); print('noise'); torch.set_grad_enabled(False); std = " + STD
    failure(check, "1.4", "import random\n" + changed("1.4", f"std = {STD}", meddling))
    assert torch.equal(before[0], torch.get_rng_state()) and random.getstate() == before[2]
    assert (before[1] == np.random.get_state()[1]).all() and torch.is_grad_enabled()
    assert "noise" not in capsys.readouterr().out


@pytest.mark.parametrize("number", EXERCISES)
def test_a_check_draws_nothing_from_the_random_state(check, number):
    before = torch.get_rng_state()
    check(number, *answers(number, source_of(number)))
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_number_and_a_result_instead_of_a_function_are_refused(check_of_01):
    with pytest.raises(ValueError, match="no exercise '9.9': choose one of 1.1"):
        check_of_01("9.9", model.VAE)
    with pytest.raises(ValueError, match="Write the number in quotes"):
        check_of_01(1.4, model.reparameterize)
    with pytest.raises(ValueError, match=r'check\("1.1", kl_divergence, recon_loss, vae_loss\)'):
        check_of_01("1.1", torch.tensor(1.0))


def test_the_summary_counts_and_adds_up_the_minutes(check_of_01, capsys):
    check_of_01("1.4", *answers("1.4", source_of("1.4")))
    check_of_01.summary()
    text = capsys.readouterr().out
    assert "1.4 done: the reparameterization" in text and "1.1 not checked: the loss" in text
    assert "1 of 10 exercises done; about 75 of 85 minutes are left." in text


def test_a_card_says_the_same_in_html_and_in_text():
    card = checks.Card("done", ["a < b", "c"])
    assert repr(card) == "a < b\nc" and "a &lt; b<br>c" in card._repr_html_()


def test_the_tables_share_no_name_and_what_is_tested_is_not_called_impossible():
    assert len(REMARKS) == sum(len(getattr(table, "REMARKS", {})) for table in TABLES)
    assert len(MISTAKES) == sum(len(table.MISTAKES) for table in TABLES)
    assert len(HARMLESS) == sum(len(table.HARMLESS) for table in TABLES)
    assert not {name.split()[0] for name in MISTAKES} & {name for table in TABLES for name in table.IMPOSSIBLE}


def test_every_exercise_has_mistakes_and_variants():
    assert {row[0] for row in MISTAKES.values()} == {row[0] for row in HARMLESS.values()} == set(EXERCISES)


def test_a_cell_that_a_magic_runs_has_its_blanks_and_lines_named(check, capsys):
    shell = InteractiveShell.instance()
    shell.user_ns |= {"torch": torch, "check": check}
    try:
        for eps, seen in (
            ("...", "still to fill: eps."),
            ("torch.randn_like(st)", "`eps = torch.randn_like(st)`, raises"),
        ):
            shell.run_cell(f"%%time\n{changed('1.4', DRAW, eps)}", store_history=True)
            shell.run_cell('check("1.4", reparameterize)', store_history=True)
            assert seen in capsys.readouterr().out
    finally:
        InteractiveShell.clear_instance()
