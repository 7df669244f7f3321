# SPDX-License-Identifier: Apache-2.0
"""Which scorers of the installed reasoning-gym run text as code: read from its sources."""

import ast
import builtins
import inspect
import textwrap
import types

BUILT_IN = ("eval", "exec", "compile", "__import__")
# all that sympy is given as text it evaluates; the others load or start programs
PACKAGES = {"sympy", "pickle", "marshal", "yaml", "subprocess", "os", "posix", "importlib"}
PACKAGES |= {"ctypes", "runpy", "code", "codeop", "pandas", "numexpr", "dill", "cloudpickle"}
METHODS = {"eval", "exec", "parse_expr", "sympify", "system", "popen", "import_module"}


def called(function):
    """Every call in a function's source: (as it stands there, its dotted name or "")."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield name, name if all(part.isidentifier() for part in name.split(".")) else ""


def resolved(name, function, owner):
    """The object that a dotted name means in a method of `owner`, or None."""
    first, *rest = name.split(".")
    if first in ("self", "cls"):
        found = owner
    else:
        found = function.__globals__.get(first, getattr(builtins, first, None))
    for part in rest:
        found = getattr(found, part, None)
    return found


def functions_of(found):
    """What of the package a call may run: the function, or all methods of the class."""
    if inspect.isclass(found):
        found = [getattr(each, "__func__", each) for each in vars(found).values()]
    else:
        found = [getattr(found, "__func__", found)]
    return [
        each
        for each in found
        if isinstance(each, types.FunctionType) and each.__module__.startswith("reasoning_gym")
    ]


def is_dangerous(name, found):
    if any(found is getattr(builtins, each) for each in BUILT_IN):
        return True
    module = getattr(found, "__module__", None) or type(found).__module__
    if found is not None:
        return module.partition(".")[0] in PACKAGES
    return name.rpartition(".")[2] in METHODS


def what_evaluates(owner):
    """The dangerous calls that a data set's score_answer can reach."""
    waiting, seen, dangerous = [owner.score_answer], set(), set()
    while waiting:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        for text, name in called(function):
            found = resolved(name, function, owner) if name else None
            if is_dangerous(text, found):
                dangerous.add(text)
            waiting += functions_of(found)
    return dangerous


def evaluating():
    """name -> dangerous calls, of all data sets that have any."""
    from reasoning_gym.factory import DATASETS

    found = {name: what_evaluates(owner) for name, (owner, _) in DATASETS.items()}
    return {name: calls for name, calls in found.items() if calls}
