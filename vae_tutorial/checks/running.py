"""Run an answer so that nothing beside it decides: by itself, from a seed, silenced, timed, and without a trace."""

import ast
import contextlib
import ctypes
import difflib
import dis
import functools
import inspect
import io
import linecache
import random
import re
import sys
import threading
import time
import traceback
import warnings

import numpy as np
import torch

SECONDS = 10  # of processor time, and of the clock
# errors of Python or PyTorch that say little to a beginner, and what they mean
CRASHES = {
    r"before Module.__init__\(\) call": "comes before super().__init__(), which must be the first line of __init__.",
    r"converted to Python scalars": "gives a whole tensor to what takes one number: torch has the functions of math.",
    r"Expected parameter scale": "gives Normal a standard deviation that is not positive: logvar is a logarithm.",
    r"'float' object has no attribute 'backward'": "needs the loss as a tensor: .item() makes a plain number of it.",
    r"same device": "mixes tensors of two devices: bring both to one.",
    r"same dtype|and weight type": "mixes tensors of two dtypes: bring both to one.",
    r"Boolean value of Tensor": "asks a whole tensor whether it is true: compare entries. A module like nn.MSELoss() "
    "is built first, then called.",
    r"bitwise_xor": "uses ^, which is no power in Python: write ** or pow.",
    r"'int' object is not iterable": "is given a number where a size is expected: write (n,), with a comma.",
    r"RecursionError": "calls itself without end: does a name of torch's mean your own function here?",
    r"UnboundLocalError: .* '(\w+)'": r"uses {0} before {0} has a value here: a name that is assigned anywhere in a "
    "function is the function's own. Give the result another name.",
    r"must be tuple of Tensors, not Tensor": "takes its tensors as one list or tuple: put them in brackets.",
    r"stack expects each tensor to be equal size": "stacks along a new dimension: cat joins along one that is there.",
    r"does not require grad": "has no graph to go back through: is something detached, or under no_grad?",
    r"graph a second time": "goes back through a graph that was used already: one backward a step.",
    r"in-place operation": "changes its input in place, as functions that end in _ do: it is still needed as it was.",
    r"TypeError: (?:\w+\.)*(\w+)\.__init__\(\) takes": "builds a layer and does not apply it: use the "
    "function whose name is written in small letters.",
    r"values to unpack \(expected (\d+)": "has {0} names on the left, but another number of values on the right.",
    r"between 0 and 1": "is a cross-entropy, which needs numbers between 0 and 1: a squared error is expected.",
    r"'(\w+)' object is not callable": "calls something that is a {0}, and no function: are the brackets right?",
    r"invalid combination of arguments": "gives a function of torch arguments that it does not take: look at their "
    "number, order and type.",
}


class TimedOut(BaseException):
    """Ends an answer that runs too long; not an Exception, so that the answer cannot swallow it."""


def plain(answer):
    """Return what is wrapped by decorators, torch.compile or functools.partial."""
    while True:
        inner = getattr(answer, "__wrapped__", None) or getattr(answer, "_torchdynamo_orig_callable", None)
        if inner is None and isinstance(answer, functools.partial):
            inner = answer.func
        if inner is None:
            return answer
        answer = inner


def functions_of(answer, method=None):
    """Return the functions of which a function or class consists, or the one method."""
    answer = plain(answer)
    if inspect.isclass(answer):
        answer = [part for name, part in vars(answer).items() if method in (None, name)]
    parts = [
        plain(getattr(part, "__func__", None) or part) for part in (answer if isinstance(answer, list) else [answer])
    ]
    return [part for part in parts if inspect.isfunction(part)]


@contextlib.contextmanager
def isolated(answer, taught):
    """Bind every other taught name that the answer looks up, or inherits from, to the finished version for a while.

    taught: {name: finished version}, of all exercises of the notebook.
    """
    spaces = {id(function.__globals__): function.__globals__ for function in functions_of(answer)}.values()
    before = [(space, name, space[name]) for space in spaces for name in taught.keys() & space.keys()]
    answer = plain(answer)
    bases = answer.__bases__ if inspect.isclass(answer) else ()
    try:
        for space, name, value in before:
            if plain(value) is not answer:
                space[name] = taught[name]
        if any(base.__name__ in taught for base in bases):
            answer.__bases__ = tuple(taught.get(base.__name__, base) for base in bases)
        yield
    finally:
        for space, name, value in before:
            space[name] = value
        if bases and answer.__bases__ != bases:
            answer.__bases__ = bases


@contextlib.contextmanager
def guarded(seed):
    """Run a block from a seed, silenced, in float32, on one thread; put all that back, and end it when it hangs."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    grad, dtype, anomaly = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_anomaly_enabled()
    threads = torch.get_num_threads()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed), random.seed(seed)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)  # for small tensors the fastest, and on a busy machine by far
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), time_limit():
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
        torch.set_num_threads(threads)


@contextlib.contextmanager
def time_limit():
    """Raise TimedOut in this thread once SECONDS have passed on the clock and on the processor, then every second.

    The clock alone would accuse a right answer on a busy machine, the processor alone one that uses many cores.
    """
    thread, over = ctypes.c_ulong(threading.get_ident()), threading.Event()
    start, used = time.monotonic(), time.process_time()

    def watch():
        while not over.wait(0.1):
            if min(time.monotonic() - start, time.process_time() - used) > SECONDS:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimedOut))
                over.wait(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def source_of(function):
    """Return the lines of the cell or file that a function stands in, [] if they cannot be found.

    inspect.getsource does not find a class of a notebook. Under %%time not even the file's name helps: there
    the cell is looked up in IPython's history.
    """
    code = function.__code__
    if lines := linecache.getlines(code.co_filename):
        return lines
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    for cell in reversed(shell.history_manager.input_hist_raw if shell else []):
        lines = cell.splitlines(keepends=True)[cell.startswith("%%") :]
        if re.search(rf"^\s*(def {code.co_name}\b|@)", "".join(lines[code.co_firstlineno - 1 :][:1])):
            return lines
    return []


def find_blanks(answer, method=None):
    """Name the blanks open in a function or class, or in one of its methods: `...` assigned, returned or alone."""
    return [blank for function in functions_of(answer, method) for blank in _blanks_of(function)]


def _blanks_of(function):
    code = function.__code__
    with contextlib.suppress(SyntaxError):  # the lines are not those of this function
        for node in ast.walk(ast.parse("".join(source_of(function)))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == code.co_name:
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


def find_line(answer, pattern, finished):
    """Return (number, text) of the first line that matches a pattern and is not the finished version's, or None."""
    given = {line.strip() for line in inspect.getsource(finished).splitlines()}
    for function in functions_of(answer):
        lines, first = source_of(function), function.__code__.co_firstlineno
        first += (function.__doc__ or "").count("\n") + 2 if function.__doc__ else 1
        last = max((line for _, _, line in function.__code__.co_lines() if line), default=first)
        for number in range(first, min(last, len(lines)) + 1):
            code = lines[number - 1].partition("#")[0]
            if re.search(pattern, code) and "import " not in code and lines[number - 1].strip() not in given:
                return number, lines[number - 1].strip()
    return None


def borrowed(answer, finished, method=None):
    """Return a name that an answer reads from the notebook, where the finished version gives it a value of its own."""
    own = {name for part in functions_of(finished, method) for name in part.__code__.co_varnames}
    for part in functions_of(answer, method):
        loads = {one.argval for one in dis.get_instructions(part) if one.opname == "LOAD_GLOBAL"}
        if taken := sorted(loads & own & part.__globals__.keys()):
            return taken[0]
    return None


def raised_at(error, answer):
    """Return the innermost frame of an answer's own code that an error came through, and its line; None if none is."""
    codes = {function.__code__.co_filename: function for function in functions_of(answer)}
    frames = [(f, n) for f, n in traceback.walk_tb(error.__traceback__) if f.f_code.co_filename in codes]
    if not frames:
        return None
    frame, number = frames[-1]
    lines = source_of(codes[frame.f_code.co_filename])
    return frame, number, lines[number - 1].strip() if number <= len(lines) else ""


def explain(error, name, at):
    """Return (a sentence that says which line raised an error, whether the sentence says what the error means).

    at: as raised_at gives it.
    """
    message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    said, known = f"raises {message}" + ("" if message.endswith((".", "?", "!")) else "."), False
    for pattern, meaning in CRASHES.items():
        if match := re.search(pattern, message):
            said, known = meaning.format(*match.groups()), True
    if at is None:
        return f"What {name} gives cannot be used: it {said}", known
    frame, number, text = at
    more = ""
    if isinstance(error, NameError) and not known:
        close = difflib.get_close_matches(error.name or "", frame.f_locals, 1, 0.6)
        close = close or difflib.get_close_matches(error.name or "", frame.f_globals, 1, 0.8)
        more, known = f" Do you mean {close[0]}?" if close else f" Known here: {', '.join(frame.f_locals)}.", True
    elif isinstance(error, AttributeError) and error.name in frame.f_globals:
        more, known = f" {error.name} is a function of the notebook: call it by its name alone.", True
    elif isinstance(error, AttributeError) and isinstance(error.obj, torch.nn.Module):
        close = difflib.get_close_matches(error.name, error.obj._modules, 1, 0.6)
        more, known = f" Do you mean {close[0]}?" if close else " The finished version does without it.", True
    elif re.search("size|shape|dimension|broadcast|multiplied|channels|index", message):
        more = shapes_in(text, frame)
    return f"Line {number} of the cell, `{text}`, {said}{more}", known


def shapes_in(text, frame):
    """Say which shapes the tensors have that a line names: the cause often lies a line above the error."""
    names = dict.fromkeys(re.findall(r"(?<![\w.])[a-zA-Z_]\w*", text))
    tensors = {name: frame.f_locals[name] for name in names if isinstance(frame.f_locals.get(name), torch.Tensor)}
    shapes = ", ".join(f"{name} has shape {tuple(tensor.shape)}" for name, tensor in tensors.items())
    return f" In the check, {shapes}." if shapes else ""
