"""The checks, held against known mistakes, each of which must be named, and against harmless variants.

The tables in mistakes/, one a notebook, hold replacements in the text of the finished version. The frame that all
checks share is tested on exercises of notebook 01.
"""

import inspect
import linecache
import math
import random
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mistakes.vae import CONV1, DRAW, KL, STD
from torch import nn
from torch.distributions import Normal

from vae_tutorial import checks, loss, model
from vae_tutorial.checks import vae as checks_of_01

TABLES = [import_module(f"mistakes.{path.stem}") for path in sorted(Path(__file__).parent.glob("mistakes/*.py"))]
CHECKS = [import_module(table.__name__.replace("mistakes", "vae_tutorial.checks")).check for table in TABLES]
EXERCISES = {number: exercise for check in CHECKS for number, exercise in check.exercises.items()}
REMINDERS = {number: words for check in CHECKS for number, words in check.reminders.items()}
MISTAKES = {name: row for table in TABLES for name, row in table.MISTAKES.items()}
HARMLESS = {name: row for table in TABLES for name, row in table.HARMLESS.items()}
# what a student's cell may use beside what the finished version itself uses
NAMES = dict(torch=torch, F=F, nn=nn, math=math, Normal=Normal)


@pytest.fixture
def check():
    return checks.Check(EXERCISES, REMINDERS)


@pytest.fixture
def check_of_01():
    return checks.Check(checks_of_01.check.exercises, checks_of_01.check.reminders)


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


every_variant = pytest.mark.parametrize("name", HARMLESS, ids=lambda name: f"{HARMLESS[name][0]} {name}")


@every_variant
def test_a_harmless_variant_is_done(check, name, seeds=(0,)):
    number, old, new = HARMLESS[name]
    student = answers(number, changed(number, old, new))
    for check.seed in seeds:
        got = check(number, *student)
        assert (list(got) if len(student) > 1 else [got]) == student
    assert check.states[number] == "done"


@pytest.mark.slow
@every_variant
def test_a_harmless_variant_is_done_with_every_seed(check, name):
    test_a_harmless_variant_is_done(check, name, seeds=range(1, 20))


def test_a_module_made_in_init_may_be_used_in_forward(check):
    made = ("        super().__init__()\n", "        super().__init__()\n        self.relu = nn.ReLU()\n")
    source = changed("1.3", *made).replace("F.relu(", "self.relu(")
    (student,) = answers("1.3", source)
    assert check("1.3", student) is student


@pytest.mark.parametrize("number", EXERCISES)
def test_the_finished_version_written_out_is_done(check, number):
    check(number, *answers(number, source_of(number)))
    assert check.states[number] == "done"


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
    assert "1.4 open: 2 of 3 blanks are still to fill (eps, the returned value)" in capsys.readouterr().out
    assert check.states["1.4"] == "open"


def test_of_several_functions_each_blank_says_whose_it_is(check, capsys):
    got = check("1.1", *with_blanks("1.1", (f"return {KL}", "return ..."), ("loss = mse + beta * kl", "loss = ...")))
    assert got == (loss.kl_divergence, loss.recon_loss, loss.vae_loss)
    assert "(the returned value of kl_divergence, loss of vae_loss)" in capsys.readouterr().out


def test_an_ellipsis_in_an_index_is_no_blank(check):
    assert check("1.6", *with_blanks("1.6", ("else mu", "else mu[..., :]")))
    assert check.states["1.6"] == "done"


def test_two_exercises_of_one_class_are_told_apart(check, capsys):
    (student,) = with_blanks("1.2", (f"self.conv1 = {CONV1}", "self.conv1 = ..."))
    assert check("1.2", student) is model.Encoder
    assert check("1.3", model.Encoder) is model.Encoder
    assert check.states["1.2"] == "open" and check.states["1.3"] == "done"
    assert "self.conv1" in capsys.readouterr().out


def test_a_wrong_forward_is_seen_behind_open_layers(check):
    blank = (f"self.conv1 = {CONV1}", "self.conv1 = ...")
    (student,) = with_blanks("1.3", blank, ("return mu, logvar", "return logvar, mu"))
    encoder = check("1.2", student)
    with pytest.raises(checks.CheckFailed, match="mixes up mu and logvar"):
        check("1.3", encoder)


def test_the_finished_version_handed_in_counts_as_open(check, capsys):
    assert check("1.4", model.reparameterize) is model.reparameterize
    assert check.states["1.4"] == "open" and "not one of your own" in capsys.readouterr().out


def test_strict_makes_an_open_exercise_fail(check, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_STRICT", "1")
    with pytest.raises(checks.CheckFailed, match="1.4 open: 1 of 3"):
        check("1.4", *with_blanks("1.4", (f"eps = {DRAW}", "eps = ...")))


def test_a_crash_names_the_line_of_the_student(check):
    message = failure(check, "1.4", changed("1.4", STD, "torch.exp(0.5 * logsigma)"))
    assert message.startswith("1.4 crashed: line ") and "`std = torch.exp(0.5 * logsigma)`" in message
    assert "raises NameError: name 'logsigma' is not defined" in message


def test_hints_change_and_the_third_points_to_the_solution(check):
    messages = [failure(check, "1.4", changed("1.4", STD, "torch.exp(logvar)")) for _ in range(3)]
    assert ["In plain words" in message for message in messages] == [False, True, True]
    assert ["folded solution" in message for message in messages] == [False, False, True]


def test_every_exercise_has_plainer_words_for_the_second_failure():
    assert REMINDERS.keys() == EXERCISES.keys()


def test_a_failure_says_what_later_cells_use_and_shows_no_traceback(check):
    with pytest.raises(checks.CheckFailed) as failed:
        check("1.4", *answers("1.4", changed("1.4", STD, "torch.exp(logvar)")))
    assert failed.value._render_traceback_() == [str(failed.value)]
    assert "later cells use your reparameterize" in str(failed.value)


def test_a_check_after_a_failure_starts_anew(check):
    failure(check, "1.4", changed("1.4", STD, "torch.exp(logvar)"))
    check("1.4", *answers("1.4", source_of("1.4")))
    assert check.states["1.4"] == "done" and check.failures["1.4"] == 0


def test_an_endless_loop_is_cut_off(check, monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.3)
    message = failure(check, "1.4", changed("1.4", f"std = {STD}", "while True: pass"))
    assert "endless loop" in message


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
    with pytest.raises(ValueError, match=r'check\("1.1", kl_divergence, recon_loss, vae_loss\)'):
        check_of_01("1.1", torch.tensor(1.0))


def test_the_summary_counts_and_adds_up_the_minutes(check_of_01, capsys):
    check_of_01("1.4", *answers("1.4", source_of("1.4")))
    check_of_01.summary()
    text = capsys.readouterr().out
    assert "1.4 done: the reparameterization" in text and "1.1 not checked: the loss" in text
    assert "1 of 10 exercises done; about 95 of 105 minutes are left." in text


def test_a_card_says_the_same_in_html_and_in_text():
    card = checks.Card("done", ["a < b", "c"])
    assert repr(card) == "a < b\nc" and "a &lt; b<br>c" in card._repr_html_()


def test_the_tables_share_no_name_and_what_is_tested_is_not_called_impossible():
    assert len(MISTAKES) == sum(len(table.MISTAKES) for table in TABLES)
    assert len(HARMLESS) == sum(len(table.HARMLESS) for table in TABLES)
    assert not {name.split()[0] for name in MISTAKES} & {name for table in TABLES for name in table.IMPOSSIBLE}


def test_every_exercise_has_mistakes_and_variants():
    assert {row[0] for row in MISTAKES.values()} == {row[0] for row in HARMLESS.values()} == set(EXERCISES)
