"""Name a student's mistake by making it: a mistake is an edit of the finished answer, and the sentence it earns.

A Lesson is one taught function, class or method. Its observe(answer) runs an answer and yields what it shows, the
cheapest first: must(...) decides whether an answer is right, clue(...) only helps to name what is wrong with it, and
should(...) earns a right answer a remark. observe draws its inputs before it calls the answer: two answers then get
the same inputs, however much each of them draws itself.
"""

import inspect
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch

from vae_tutorial.checks.comparing import alike, difference
from vae_tutorial.checks.families import namespace, variations
from vae_tutorial.checks.running import SECONDS, TimedOut, borrowed, explain, find_line, guarded, isolated, raised_at

SEARCH_SECONDS = 3  # of processor time, to look for a mistake
# what a sentence speaks of, the lines of an answer that it may be about, and what to say if there is none
SUSPECTS = (
    ("no gradient", r"detach|\.data\b|no_grad|inference_mode|\.item\(|torch\.tensor\(|\.sample\(|normal\(|round|numpy",
     " detach, .data, torch.tensor, .item(), no_grad and sample() cut it off."),
    ("a wrong gradient", r"detach|\.data\b|no_grad|\.item\(|torch\.tensor\(|round|clamp|clip", ""),
    ("in place", r"\w_\(|[-+*/@]=(?!=)|\]\s*=(?!=)|out=", ""),
    ("seeds", r"seed", ""),
    ("dropout", r"[dD]ropout", ""),
    ("clamp", r"clamp|clip|hardtanh|max\(|min\(", ""),
    ("backward is missing", r"backward(?!\()|torch\.tensor\(|detach|\.data\b|item\(\).*tensor", ""),
    ("never steps", r"\bstep(?!\w*\()|optim\.", ""),
    ("is given a", r"nn\.(\w*ReLU|ELU|GELU|SiLU|Tanh|Sigmoid|Softplus|Dropout\w*)\((?!\))", ""),
    ("self.training", r"self\.train\b|encoder\.training|decoder\.training|is_grad_enabled", ""),
    ("in eval mode", r"^\s*eval_mode\(|\.eval\(\)", ""),
    ("in train mode", r"^\s*eval_mode\(|\.train\(", ""),
    ("frozen", r"requires_grad", ""),
    ("float64", r"double|float64|numpy|np\.|\.type\(", ""),
)  # fmt: skip


class Wrong(Exception):
    """What to tell the student.

    state: "wrong", or "crashed" where a line of the answer raised; how: "row", "reader", "family", "pair", "error" or
    "difference", the way in which the sentence was found.
    """

    def __init__(self, sentence, state="wrong", how="reader"):
        super().__init__(sentence)
        self.state, self.how = state, how


@dataclass(frozen=True)
class Lesson:
    """One thing to check. finished: a function or class; method: the only method of the class that is looked at.

    rows: (piece of the finished text, the mistake, the sentence), one mistake each.
    reminder: what the answer must do, in plain sentences, shown from the second failure on.
    """

    finished: Callable
    observe: Callable
    rows: tuple = ()
    reminder: str = ""
    method: str | None = None

    @property
    def name(self):
        return f"{self.method} of {self.finished.__name__}" if self.method else self.finished.__name__


@dataclass(frozen=True)
class Seen:
    """One thing that an answer shows.

    what: begins the sentence that says how it differs; read: a better sentence, or read(got, want, **given) -> such
    a sentence or None, where given is what the reader must know of the inputs; unit: what one entry of a tensor is.
    remark, pattern: what to say where it should differ from the finished version's, and which line that is about.
    at: the student's line that raised, as running.raised_at gives it.
    """

    kind: str
    what: str
    value: object
    read: Callable | str | None = None
    unit: str = ""
    given: dict = field(default_factory=dict)
    remark: str = ""
    pattern: str = ""
    at: tuple | None = None


def must(what, value, read=None, unit="", **given):
    """Show what decides whether an answer is right."""
    return Seen("must", what, value, read, unit, given)


def holds(condition, sentence):
    """Show something that decides, and that is so or not; the sentence says what is wrong where it is not."""
    return Seen("must", sentence if not condition else "", bool(condition), sentence)


def clue(what, value, read=None, unit="", **given):
    """Show what does not decide, but names a mistake when something that decides is wrong."""
    return Seen("clue", what, value, read, unit, given)


def should(what, value, remark, pattern=""):
    """Show what earns a remark, about the line that the pattern finds, or (number, text) that value is."""
    return Seen("should", what, value, remark=remark, pattern=pattern)


def judge(lesson, answer, taught, seed=0):
    """Return the remarks on a right answer, [] if there are none; raise Wrong for another.

    taught: {name: finished version} of every exercise.
    """
    answer = getattr(answer, "_torchdynamo_orig_callable", answer)  # torch.compile changes no result, and takes long
    want, got = finished_look(lesson, seed), look(lesson, answer, taught, seed)
    if not same_musts(got, want):
        sentence, how = name_mistake(lesson, answer, got, want, seed)
        state = "crashed" if got[-1].kind == "error" and got[-1].at else "wrong"
        raise Wrong(with_suspect(sentence, answer, lesson.finished), state, how)
    both = zip(without_clues(got), without_clues(want), strict=True)
    return [remark_on(g, answer, lesson.finished) for g, w in both if g.remark and not alike(g.value, w.value)]


def name_mistake(lesson, answer, got, want, seed):
    """Return the best sentence about a wrong answer, and how it was found: the surest and quickest ways first."""
    deadline = time.process_time() + SEARCH_SECONDS
    given, wanted = first_difference(got, want)
    plain = (
        given.value if given.kind == "error" else f"{wanted.what} {difference(given.value, wanted.value, wanted.unit)}."
    )
    varied = variations(lesson.finished, lesson.method) if given.kind != "error" else ()
    name, kinds = borrowed(answer, lesson.finished, lesson.method), [kind_of(one.value) for one in (given, wanted)]
    own = f"{lesson.name} gives {name} no value of its own, so {name} is what it is in the notebook: assign it inside."
    seeds = (
        f"{lesson.name} seeds the random numbers, so every call draws the same ones: leave the seed to the notebook."
    )
    ways = (
        ("reader", lambda: seeds if got[0].value is False else None),
        ("row", lambda: matching(singles(lesson), lesson, got, seed, deadline)),
        ("reader", lambda: own if name else None),
        ("reader", lambda: read(given, wanted)),
        ("reader", lambda: plain if given.kind != "error" and kinds[0] != kinds[1] else None),
        ("family", lambda: matching(varied, lesson, got, seed, deadline)),
        ("pair", lambda: matching(pairs(lesson), lesson, got, seed, deadline)),
        ("error" if given.kind == "error" else "difference", lambda: plain),
    )
    said, how = next((said, how) for how, way in ways if (said := way()))
    return f"{lesson.name} behaves as if {said}." if how == "family" else said, how


def kind_of(value):
    return type(value), getattr(value, "dtype", None), getattr(value, "shape", None)


def look(lesson, answer, taught, seed, like=None):
    """Return what an answer shows, an error last; with `like` only up to the first must that is not as there."""
    seen, seed = [], seed + 1_000_003  # no seed that a student would choose
    like = like and without_clues(like)[1:]
    with guarded(seed), isolated(answer, taught):
        try:
            for one in lesson.observe(answer):
                seen.append(one)
                if like is not None and one.kind != "clue" and not (like and like_must(one, like.pop(0))):
                    break
        except TimedOut:
            said = f"Your code still ran after {SECONDS} seconds: is there an endless loop?"
            seen.append(Seen("error", "", said, said, at=(None, 0, "")))
        except (Exception, SystemExit) as error:
            at = raised_at(error, answer)
            said, known = explain(error, lesson.name, at)
            seen.append(Seen("error", f"{type(error).__name__}: {error}", said, said if known else None, at=at))
        seeded = torch.initial_seed() != seed
    return [Seen("must", "the seed", not seeded), *seen]


@cache
def finished_look(lesson, seed):
    """Return what the finished version shows; an error there is a fault of observe."""
    seen = look(lesson, lesson.finished, {}, seed)
    assert seen[-1].kind != "error", seen[-1].value
    return seen


def matching(candidates, lesson, got, seed, deadline):
    """Return the sentence of the first (version, sentence) that shows what the answer shows; None if there is none."""
    for version, sentence in candidates:
        if time.process_time() > deadline:
            return None
        if same_musts(look(lesson, version, {}, seed, like=got), got):
            return sentence
    return None


def singles(lesson):
    return ((edited(lesson.finished, row), row[2]) for row in lesson.rows)


def pairs(lesson):
    """Yield two rows at once, where they edit different places."""
    text = inspect.getsource(lesson.finished)
    ends = {row: (text.index(row[0]), text.index(row[0]) + len(row[0])) for row in lesson.rows}
    for one, other in itertools.combinations(lesson.rows, 2):
        if ends[one][1] <= ends[other][0] or ends[other][1] <= ends[one][0]:
            yield edited(lesson.finished, one, other), f"{one[2]} And: {other[2]}"


@cache
def edited(finished, *rows):
    """Return the finished function or class with the rows' pieces of its text replaced."""
    text = source = inspect.getsource(finished)
    for piece, mistake, _ in sorted(rows, key=lambda row: source.find(row[0]), reverse=True):  # the last place first
        if source.count(piece) != 1:
            raise ValueError(
                f"{piece!r} must occur once in {finished.__name__}, and occurs {source.count(piece)} times"
            )
        at = source.index(piece)
        text = text[:at] + mistake + text[at + len(piece) :]
    names = namespace(finished)
    exec(compile(text, f"<{finished.__name__}, edited>", "exec"), names)
    return names[finished.__name__]


def first_difference(got, want):
    """Return the first thing seen, remarks aside, in which two answers differ, from both."""
    rest = list(want)
    for g in got:
        w = next((one for one in rest if one.what == g.what), None)
        if w:
            rest.remove(w)
            if g.kind != "should" and not alike(g.value, w.value):
                return g, w
        elif g.kind != "clue":
            return g, want[-1]
    return got[-1], rest[0]


def read(given, wanted):
    """Return the sentence of the reader of what differs, None if it has none to say."""
    if given.read is None or isinstance(given.read, str):
        return given.read
    return given.read(given.value, wanted.value, **given.given)


def with_suspect(sentence, answer, finished):
    """Add to a sentence which line of the answer it may be about, where it names none."""
    for words, pattern, otherwise in SUSPECTS:
        if words in sentence.lower():
            line = find_line(answer, pattern, finished)
            if line is None:
                return sentence + otherwise
            told = re.search(rf"[Ll]ine {line[0]}\b", sentence)
            return sentence if told else f"{sentence} Look at line {line[0]}: `{line[1]}`."
    return sentence


def remark_on(seen, answer, finished):
    line = find_line(answer, seen.pattern, finished) if seen.pattern else None
    line = line or (seen.value if isinstance(seen.value, tuple) else None)
    return f"Line {line[0]}, `{line[1]}`: {seen.remark}" if line else seen.remark


def without_clues(seen):
    return [one for one in seen if one.kind != "clue"]


def same_musts(some, others):
    some, others = without_clues(some), without_clues(others)
    return len(some) == len(others) and all(map(like_must, some, others))


def like_must(a, b):
    return a.kind == b.kind and a.what == b.what and (a.kind != "must" or alike(a.value, b.value))


def faults(lesson, seed=0):
    """Return the rows that name no mistake of their own, and why: for a test to show."""
    shown, found = [("the finished version", finished_look(lesson, seed))], []
    for row in lesson.rows:
        seen = look(lesson, edited(lesson.finished, row), {}, seed)
        found += [(row[1], f"shows the same as {other}") for other, its in shown if same_musts(seen, its)]
        shown.append((row[1], seen))
    return found
