"""Compare an answer with the finished version: the code that the checks of all notebooks share.

    vae_loss = check("1.1", vae_loss)

check takes the student's definition, and returns the definition that later cells use. There are four outcomes:

done     the answer is right: it is returned, and a green line says so
open     blanks (`...`) are left: they are named, and the finished version is returned; with
         VAE_TUTORIAL_STRICT=1 the cell fails instead
wrong    the cell fails with one sentence that names the mistake
crashed  the cell fails with one sentence that names the line that raised
"""

import ast
import contextlib
import ctypes
import html
import inspect
import io
import linecache
import os
import random
import re
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from IPython.display import display

SECONDS = 10
COLOURS = {"done": "#2a9d5c", "open": "#c98a00"}
# errors of Python or PyTorch that say little to a beginner, and what they mean
CRASHES = {
    r"before Module.__init__\(\) call": "comes too early: super().__init__() must be the first line of __init__.",
    r"converted to Python scalars": "takes single numbers, and is given several: torch has the functions of math, "
    "and what is counted is added up first.",
    r"Expected parameter scale": "gives Normal a standard deviation that is not positive: logvar is a logarithm.",
    r"'float' object has no attribute 'backward'": "needs the tensor: .item() is for what is returned.",
    r"same dtype|same device|and weight type": "mixes tensors of different dtypes or devices: bring both to one.",
    r"Boolean value of Tensor": "asks a whole tensor whether it is true: compare entries; a module like nn.MSELoss() "
    "is built first, then called.",
    r"bitwise_xor": "uses ^, which is no power in Python: write ** or pow.",
    r"'int' object is not iterable": "is given a number where a size is expected: write (n,), with a comma.",
    r"RecursionError": "calls itself without end.",
    r"does not require grad": "has no graph to go back through: is something detached, or under no_grad?",
    r"graph a second time": "goes back through a graph that was used already: leave backward to train_step.",
}


class Wrong(Exception):
    """Raised by a judge, with the sentence that names the mistake."""


class CheckFailed(Exception):
    """Fail a cell with one sentence, without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


class _TimedOut(BaseException):
    """Ends an answer that runs too long; not an Exception, so that the answer cannot swallow it."""


@dataclass(frozen=True)
class Exercise:
    """What one exercise asks for, and what its answers are compared with.

    finished: the finished functions or class, in the order in which the check takes the student's.
    judge: takes the answers, raises Wrong where one is wrong.
    blanks: how many blanks the exercise has; methods: the methods of a class that hold them, all if empty.
    """

    title: str
    minutes: int
    blanks: int
    finished: tuple
    judge: Callable
    methods: tuple = ()


class Check:
    """Check the exercises of one notebook; remember the result of each for the summary.

    exercises: {number: Exercise}; reminders: {number: what the answer must do, in plain words}, shown from the
    second wrong answer on.
    """

    def __init__(self, exercises, reminders=(), seed=0):
        self.exercises, self.reminders = exercises, dict(reminders)
        self.seed = seed
        self.states = dict.fromkeys(exercises, "not checked")
        self.failures = dict.fromkeys(exercises, 0)
        self._answers = {}

    def __call__(self, number, *answers):
        """Check the answers to an exercise; return what later cells use: one definition as it is, several as a tuple.

        Raises CheckFailed when the answer is wrong or raises, ValueError when there is no such exercise or answer.
        An answer still running after ten seconds is cut off, unless it is inside one long call into C.
        """
        exercise = self._find(number, answers)
        answers = [self._own(answer, finished) for answer, finished in zip(answers, exercise.finished, strict=True)]
        names = [finished.__name__ for finished in exercise.finished]
        blanks = _open_blanks(answers, exercise)
        if blanks is None or blanks:
            result = self._leave_open(number, exercise, blanks)
        else:
            self._judge(number, exercise, answers)
            self.states[number], self.failures[number] = "done", 0
            display(Card("done", [f"{number} done: {exercise.title}."]))
            unfinished = any(find_blanks(answer) for answer in answers)
            result = exercise.finished if unfinished else answers
        return result[0] if len(names) == 1 else tuple(result)

    def summary(self):
        """Show which exercises are done, open, wrong, crashed or not checked, and how many minutes are left."""
        lines = [f"{number} {state}: {self.exercises[number].title}" for number, state in self.states.items()]
        left = [self.exercises[number].minutes for number, state in self.states.items() if state != "done"]
        total = sum(exercise.minutes for exercise in self.exercises.values())
        done = len(self.states) - len(left)
        lines.append(f"{done} of {len(self.states)} exercises done; about {sum(left)} of {total} minutes are left.")
        if "open" in self.states.values():
            lines.append("The finished version stands in for what is open.")
        display(Card("open" if left else "done", lines))

    def _find(self, number, answers):
        if number not in self.exercises:
            raise ValueError(f"There is no exercise {number!r}: choose one of {', '.join(self.exercises)}.")
        exercise = self.exercises[number]
        wanted = ", ".join(finished.__name__ for finished in exercise.finished)
        kinds = all(inspect.isclass(answer) or inspect.isfunction(answer) for answer in answers)
        if len(answers) != len(exercise.finished) or not kinds:
            raise ValueError(
                f'Write check("{number}", {wanted}): it takes the definitions themselves, not their results.'
            )
        return exercise

    def _own(self, answer, finished):
        """Return the answer; for the finished version, which an earlier check returned, the student's latest answer."""
        if answer is not finished:
            self._answers[finished] = answer
        return self._answers.get(finished, finished)

    def _leave_open(self, number, exercise, blanks):
        self.states[number] = "open"
        if blanks is None:
            text = f"{number} open: this is the finished version, not one of your own"
        else:
            count = f"{len(blanks)} of {exercise.blanks} blanks are" if exercise.blanks > 1 else "the blank is"
            text = f"{number} open: {count} still to fill ({', '.join(blanks)})"
        if os.environ.get("VAE_TUTORIAL_STRICT") == "1":
            raise CheckFailed(f"{text}.")
        display(Card("open", [f"{text}; the finished version stands in."]))
        return exercise.finished

    def _judge(self, number, exercise, answers):
        """Run the exercise's judge on the answers; turn what it raises into CheckFailed."""
        names = ", ".join(finished.__name__ for finished in exercise.finished)
        try:
            with _guarded(self.seed):
                exercise.judge(*answers)
        except Wrong as mistake:
            state, hint = "wrong", str(mistake)
        except _TimedOut:
            state, hint = "crashed", f"your code was still running after {SECONDS} seconds: is there an endless loop?"
        except (Exception, SystemExit) as error:
            state, hint = _explain(error, answers, names)
        else:
            return
        self.states[number] = state
        self.failures[number] += 1
        if self.failures[number] > 1 and number in self.reminders:
            hint += f" In plain words: {self.reminders[number]}"
        if self.failures[number] > 2:
            hint += " The folded solution below shows one way."
        raise CheckFailed(f"{number} {state}: {hint}\nUntil this passes, later cells use your {names}.") from None


class Card:
    """A few lines with a coloured edge, readable on a light and on a dark background; also as plain text."""

    def __init__(self, state, lines):
        self.state, self.lines = state, lines

    def __repr__(self):
        return "\n".join(self.lines)

    def _repr_html_(self):
        style = f"border-left: 4px solid {COLOURS[self.state]}; padding: 2px 12px; margin: 2px 0"
        return f'<div style="{style}">{"<br>".join(map(html.escape, self.lines))}</div>'


def find_blanks(answer, methods=()):
    """Name the blanks still open in a function or class: a `...` assigned, returned or standing alone.

    methods: the methods to look at; all if empty. inspect.getsource does not find a class defined in a notebook,
    but the file name of its methods' code does.
    """
    functions = [answer]
    if inspect.isclass(answer):
        functions = [value for name, value in vars(answer).items() if not methods or name in methods]
    return [blank for function in functions for blank in _blanks_of(inspect.unwrap(function))]


def _open_blanks(answers, exercise):
    """Name the open blanks of all answers; None where the finished version itself is handed in."""
    if any(answer is finished for answer, finished in zip(answers, exercise.finished, strict=True)):
        return None
    blanks = [(answer, blank) for answer in answers for blank in find_blanks(answer, exercise.methods)]
    return [f"{blank} of {answer.__name__}" if len(answers) > 1 else blank for answer, blank in blanks]


def _blanks_of(function):
    if not inspect.isfunction(function):
        return []
    code = function.__code__
    source = "".join(linecache.getlines(code.co_filename))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno] + [decorator.lineno for decorator in node.decorator_list])
            if first == code.co_firstlineno:
                statements = sorted(ast.walk(node), key=lambda part: getattr(part, "lineno", 0))
                return [name for statement in statements if (name := _blank_name(statement))]
    return []


def _blank_name(statement):
    value = getattr(statement, "value", None)
    if not (isinstance(statement, ast.stmt) and isinstance(value, ast.Constant) and value.value is ...):
        return None
    if isinstance(statement, ast.Assign):
        return ", ".join(ast.unparse(target).strip("()") for target in statement.targets)
    if isinstance(statement, ast.AnnAssign):
        return ast.unparse(statement.target)
    return "the returned value" if isinstance(statement, ast.Return) else f"line {statement.lineno}"


def _explain(error, answers, names):
    """Return the state and the hint for an error: crashed with the student's line, or wrong if no such line raised."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    message = next((hint for pattern, hint in CRASHES.items() if re.search(pattern, message)), f"raises {message}")
    functions = [f for a in answers for f in (vars(a).values() if inspect.isclass(a) else [a])]
    files = {inspect.unwrap(f).__code__.co_filename for f in functions if inspect.isfunction(f)}
    frames = [(f.f_code.co_filename, n) for f, n in traceback.walk_tb(error.__traceback__)]
    if own := [frame for frame in frames if frame[0] in files]:
        line = linecache.getline(*own[-1]).strip()
        return "crashed", f"line {own[-1][1]} of the cell, `{line}`, {message[:300]}"
    return "wrong", f"what {names} gives cannot be used, it {message[:300]}"


@contextlib.contextmanager
def _guarded(seed):
    """Run an answer with a fixed seed, no output and a time limit; restore the global state that it may change."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    grad, dtype, anomaly = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_anomaly_enabled()
    torch.default_generator.manual_seed(seed)
    torch.set_grad_enabled(True)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _time_limit():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.autograd.set_detect_anomaly(anomaly)


@contextlib.contextmanager
def _time_limit():
    """Raise _TimedOut in this thread after ten seconds, then every second until the block ends (signals need Unix)."""
    thread, over = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def interrupt():
        patience = SECONDS
        while not over.wait(patience):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_TimedOut))
            patience = 1

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        yield
    finally:
        over.set()
