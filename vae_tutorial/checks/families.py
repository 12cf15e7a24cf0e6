"""Families of mistakes that need no row: small changes of the finished text, tried one by one, and what each means.

Each is told as "... behaves as if ...", which is true whatever the student wrote.
"""

import ast
import inspect
import math
import sys
import warnings

import torch
import torch.nn.functional as F
from torch import nn

# functions that are mistaken for one another
SIBLINGS = (
    ("relu", "leaky_relu", "elu", "gelu", "silu", "relu6", "sigmoid", "tanh", "softplus", "hardtanh"),
    ("randn_like", "rand_like", "ones_like", "zeros_like"),
    ("randn", "rand", "zeros", "ones"),
    ("mean", "sum", "median", "max", "min", "std", "var", "prod", "logsumexp"),
    ("exp", "log", "sqrt", "square", "abs", "expm1", "sigmoid", "log1p", "reciprocal"),
    ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits"),
    ("sin", "cos", "tan"),
)
# what may be done to a value once too often
WRAPS = {
    "-{}": "negated",
    "torch.exp({})": "passed through exp",
    "torch.log({})": "passed through log",
    "torch.sqrt({})": "replaced by its square root",
    "torch.square({})": "squared",
    "torch.abs({})": "passed through abs",
    "2 * {}": "doubled",
    "0.5 * {}": "halved",
    "{}.detach()": "detached, so that no gradient passes",
    "torch.relu({})": "passed through relu",
    "torch.sigmoid({})": "passed through sigmoid",
    "torch.tanh({})": "passed through tanh",
    "F.softplus({})": "passed through softplus",
    "F.leaky_relu({})": "passed through leaky_relu",
    "F.elu({})": "passed through elu",
    "F.gelu({})": "passed through gelu",
    "F.silu({})": "passed through silu",
    "F.dropout({})": "passed through dropout",
    "{}.softmax(1)": "passed through softmax",
    "{}.clamp(-1, 1)": "clamped to [-1, 1]",
    "{}.clamp(min=0)": "clamped at 0",
    "{}.round()": "rounded",
    "{}.mean()": "averaged",
    "{}.sum()": "summed",
    "{}.mean(0)": "averaged over its first axis",
    "{}.mean(1)": "averaged over its second axis",
    "{}.sum(0)": "summed over its first axis",
    "{}.sum(1)": "summed over its second axis",
    "{}.mean(0, keepdim=True)": "averaged over its first axis",
    "{}.mean(1, keepdim=True)": "averaged over its second axis",
    "{}.sum(0, keepdim=True)": "summed over its first axis",
    "{}.sum(1, keepdim=True)": "summed over its second axis",
    "{}.T": "transposed",
    "{}.flip(0)": "put in reverse order",
    "{}[:1]": "cut to its first row",
    "{}[0]": "cut to its first row",
    "{}.squeeze()": "squeezed",
    "{}.flatten(1)": "flattened",
    "{}.item()": "made a plain number",
    "{}.double()": "turned into float64",
    "({} / {}.norm())": "divided by its norm",
    "({} - {}.mean())": "shifted to mean 0",
    "({} / {}.std())": "divided by its standard deviation",
}
OPERATORS = {
    ast.Add: "added",
    ast.Sub: "subtracted",
    ast.Mult: "multiplied",
    ast.Div: "divided",
    ast.Pow: "raised to a power",
    ast.MatMult: "multiplied as matrices",
}


def namespace(finished):
    """Return the names that a changed version of a finished one looks up: its module's, and what a notebook imports."""
    return dict(torch=torch, F=F, nn=nn, math=math) | vars(sys.modules[finished.__module__])


def variations(finished, method=None):
    """Yield (a changed function or class, how to call the change), from a finished one, or from one of its methods."""
    tree = ast.parse(inspect.getsource(finished))
    for function in [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and method in (None, node.name)
    ]:
        for change, undo, said in changes(function):
            change()
            names = namespace(finished)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    exec(compile(ast.fix_missing_locations(tree), f"<{finished.__name__}, varied>", "exec"), names)
            except (SyntaxError, ValueError, TypeError):
                continue  # no Python
            finally:
                undo()
            yield names[finished.__name__], said


def changes(function):
    """Yield (how to make a change of the function's tree, how to undo it, what it is)."""
    local = [arg.arg for arg in function.args.args if arg.arg != "self"]
    local += [node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for statement in function.body:
        for parent in ast.walk(statement) if not isinstance(statement, ast.Assert) else ():
            for owner, key, node in expressions(parent):
                for new, said in instead(node, parent, dict.fromkeys(local)):
                    yield *slot(owner, key, new), said


def expressions(parent):
    """Yield (owner, key, node) for every expression right below a node: owner.key or owner[key] is the node."""
    for field, value in ast.iter_fields(parent):
        if isinstance(value, ast.expr):
            yield parent, field, value
        elif isinstance(value, list):
            yield from ((value, at, node) for at, node in enumerate(value) if isinstance(node, ast.expr))


def slot(owner, key, new):
    """Return two functions that put a new node in a place, and the old one back."""
    if isinstance(owner, list):
        old = owner[key]
        return lambda: owner.__setitem__(key, new), lambda: owner.__setitem__(key, old)
    old = getattr(owner, key)
    return lambda: setattr(owner, key, new), lambda: setattr(owner, key, old)


def instead(node, parent, local):
    """Yield (what may stand in an expression's place, what that means)."""
    if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        return
    if isinstance(node, ast.Name) and node.id in local:
        yield from (
            (ast.Name(other, ast.Load()), f"{other} stood in a place of {node.id}")
            for other in local
            if other != node.id
        )
    name = called(node, parent)
    if isinstance(node, ast.Call):
        yield from other_calls(node)
    if isinstance(node, ast.BinOp):
        left, right = called(node.left), called(node.right)
        yield node.left, f"{right or 'a term'} were left out"
        yield node.right, f"{left or 'a term'} were left out"
        for operator, said in OPERATORS.items():
            if not isinstance(node.op, operator):
                yield (
                    ast.BinOp(node.left, operator(), node.right),
                    f"{left or 'one part'} and {right or 'another'} were {said}",
                )
        yield (
            ast.BinOp(node.right, node.op, node.left),
            f"{left or 'one part'} and {right or 'another'} had changed places",
        )
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand, "a minus sign were missing"
    if isinstance(node, ast.IfExp):
        yield node.body, f"{name} were the same in both cases: {called(node.body) or 'the first'}"
        yield node.orelse, f"{name} were the same in both cases: {called(node.orelse) or 'the second'}"
        yield ast.IfExp(node.test, node.orelse, node.body), "the two cases had changed places"
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        for value in dict.fromkeys((node.value + 1, node.value - 1, -node.value, 2 * node.value, node.value / 2)):
            yield ast.Constant(value), f"a number were {value:g}, where it should be {node.value:g}"
    if name:
        for pattern, said in WRAPS.items():
            text = pattern.replace("{}", f"({ast.unparse(node)})")
            yield ast.parse(text, mode="eval").body, f"{name} were {said}"


def called(node, parent=None):
    """Name an expression without giving the finished text away; "" where that cannot be done."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(parent, ast.Return):
        return "the result"
    if isinstance(parent, ast.Assign):
        return ast.unparse(parent.targets[0]).strip("()")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return f"the result of {'self.' * (ast.unparse(node.func.value) == 'self')}{node.func.attr}"
    return ""


def other_calls(node):
    """Yield other forms of a call: without the function, with two arguments exchanged, with one's sibling."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    method = owner is not None and not (isinstance(owner, ast.Name) and owner.id in ("torch", "F", "nn", "self"))
    if method or node.args:
        yield owner if method else node.args[0], f"{name} were left out"
    for at, (one, other) in enumerate(zip(node.args, node.args[1:], strict=False)):
        args = node.args[:at] + [other, one] + node.args[at + 2 :]
        exchanged = f"{called(one) or 'an argument'} and {called(other) or 'another'}"
        yield ast.Call(node.func, args, node.keywords), f"{name} took {exchanged} in each other's place"
    for at in range(len(node.keywords)):
        keywords = node.keywords[:at] + node.keywords[at + 1 :]
        yield ast.Call(node.func, node.args, keywords), f"{name} got no {node.keywords[at].arg}"
    for group in SIBLINGS:
        if name in group and owner is not None:
            for other in group:
                if other != name:
                    yield (
                        ast.Call(ast.Attribute(owner, other, ast.Load()), node.args, node.keywords),
                        f"{other} stood in the place of {name}",
                    )
