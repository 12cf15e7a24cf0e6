"""Compare an answer with the finished version, and tell the student what is right or which mistake it is.

    vae_loss = check("1.1", vae_loss)

check takes the student's definition, and returns the definition that later cells use. There are four outcomes:

done     the answer is right: it is returned, and a green line says so, with a remark on what fails elsewhere
open     blanks (`...`) are left: they are named, what is full is checked, and the finished version fills in; with
         VAE_TUTORIAL_STRICT=1 the cell fails instead
wrong    the cell fails with one sentence that names the mistake
crashed  the cell fails with one sentence that names the line that raised

How a mistake is named: engine.py. The mistakes of a notebook: vae.py and its neighbours.
"""

import html
import os
from dataclasses import dataclass

from IPython.display import display

from vae_tutorial.checks.engine import Wrong, judge
from vae_tutorial.checks.running import find_blanks

COLOURS = {"done": "#2a9d5c", "open": "#c98a00"}


class CheckFailed(Exception):
    """Fail a cell with one sentence, without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


@dataclass(frozen=True)
class Exercise:
    """What one exercise asks for: one lesson for each function, class or method that it checks."""

    title: str
    minutes: int
    lessons: tuple

    @property
    def finished(self):
        return tuple(dict.fromkeys(lesson.finished for lesson in self.lessons))


class Check:
    """Check the exercises of one notebook, {number: Exercise}; remember the result of each for the summary."""

    def __init__(self, exercises, seed=0):
        self.exercises, self.seed = exercises, seed
        self.states = dict.fromkeys(exercises, "not checked")
        self.failures = dict.fromkeys(exercises, 0)
        self.taught = {one.__name__: one for exercise in exercises.values() for one in exercise.finished}
        self._answers = {}

    def __call__(self, number, *answers):
        """Check the answers to an exercise; return what later cells use: one definition as it is, several as a tuple.

        Raises CheckFailed when an answer is wrong or raises, ValueError when there is no such exercise or answer.
        An answer still running after ten seconds is cut off, unless it is inside one long call into C.
        """
        exercise = self._find(number, answers)
        names = [finished.__name__ for finished in exercise.finished]
        answers = [self._own(answer, finished) for answer, finished in zip(answers, exercise.finished, strict=True)]
        if any(answer is finished for answer, finished in zip(answers, exercise.finished, strict=True)):
            self._leave_open(number, "this is the finished version, not one of your own")
            return exercise.finished[0] if len(names) == 1 else exercise.finished
        blanks, remarks = self._judge(number, exercise, dict(zip(names, answers, strict=True)))
        if blanks:
            self._leave_open(number, f"still to fill: {listed(blanks)}")
        else:
            self.states[number], self.failures[number] = "done", 0
            display(Card("done", [f"{number} done: {exercise.title}.", *remarks]))
        result = [f if find_blanks(a) else a for f, a in zip(exercise.finished, answers, strict=True)]
        return result[0] if len(names) == 1 else tuple(result)

    def summary(self):
        """Show which exercises are done, open, wrong, crashed or not checked, and how many minutes are left."""
        lines = [f"{number} {state}: {self.exercises[number].title}" for number, state in self.states.items()]
        left = [self.exercises[number].minutes for number, state in self.states.items() if state != "done"]
        total = sum(exercise.minutes for exercise in self.exercises.values())
        done = len(self.states) - len(left)
        lines.append(f"{done} of {len(self.states)} exercises done; about {sum(left)} of {total} minutes are left.")
        if "open" in self.states.values():
            lines.append("The finished version fills in for what is open.")
        display(Card("open" if left else "done", lines))

    def _find(self, number, answers):
        if number not in self.exercises:
            quoted = " Write the number in quotes." if not isinstance(number, str) else ""
            raise ValueError(f"There is no exercise {number!r}: choose one of {', '.join(self.exercises)}.{quoted}")
        exercise = self.exercises[number]
        wanted = ", ".join(finished.__name__ for finished in exercise.finished)
        if len(answers) != len(exercise.finished) or not all(map(callable, answers)):
            raise ValueError(f'Write check("{number}", {wanted}): it takes the definitions, not their results.')
        return exercise

    def _own(self, answer, finished):
        """Return the answer; for the finished version, which an earlier check returned, the student's latest answer."""
        if answer is not finished:
            self._answers[finished] = answer
        return self._answers.get(finished, finished)

    def _judge(self, number, exercise, answers):
        """Check every function whose blanks are full; return the blanks of the others, and the remarks."""
        left, remarks = [], []
        for lesson in exercise.lessons:
            answer = answers[lesson.finished.__name__]
            if blanks := find_blanks(answer, lesson.method):
                left += [f"{blank} of {lesson.finished.__name__}" if len(answers) > 1 else blank for blank in blanks]
                continue
            try:
                remarks += judge(lesson, answer, self.taught, self.seed)
            except Wrong as wrong:
                self._fail(number, wrong.state, str(wrong), lesson.finished.__name__, lesson.reminder)
        return left, remarks

    def _leave_open(self, number, text):
        self.states[number] = "open"
        if os.environ.get("VAE_TUTORIAL_STRICT") == "1":
            raise CheckFailed(f"{number} open: {text}.")
        display(Card("open", [f"{number} open: {text}. The finished version fills in."]))

    def _fail(self, number, state, hint, names, reminder):
        self.states[number] = state
        self.failures[number] += 1
        lines = [f"{number} {state}: {hint}"]
        if self.failures[number] > 1 and reminder and "NameError" not in hint:
            lines.append(f"In plain words: {reminder}")
        if self.failures[number] > 2:
            lines.append("The folded solution below shows one way.")
        lines.append(f"Until this is right, {names} means your version in the cells below.")
        raise CheckFailed("\n".join(lines)) from None


def listed(words):
    """Write a list as a sentence does: a, b and c."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


class Card:
    """A few lines with a coloured edge, readable on a light and on a dark background; also as plain text."""

    def __init__(self, state, lines):
        self.state, self.lines = state, lines

    def __repr__(self):
        return "\n".join(self.lines)

    def _repr_html_(self):
        style = f"border-left: 4px solid {COLOURS[self.state]}; padding: 2px 12px; margin: 2px 0"
        return f'<div style="{style}">{"<br>".join(map(html.escape, self.lines))}</div>'
