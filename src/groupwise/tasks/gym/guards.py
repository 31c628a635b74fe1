"""What verifiers of reasoning-gym may do with a text: read numbers and lists of them, and sums of known functions.

    eval("[['Q', '.'], [1, 2]]")      a literal: allowed            eval("(3 << 2) + 0x1f")    arithmetic: allowed
    eval("__import__('os')")          a call, a name: ValueError    parse_expr("9*(4 - x)")    allowed
    parse_expr("().__class__")        an attribute: ValueError

Some verifiers hand the model's text to `eval`, some to sympy's `parse_expr`, which does the same inside. Both are
replaced in every module of the library, and an audit hook refuses what no verifier needs: to write, to connect, to
start a program. Only for the process that `server` runs in.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import operator
import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

_LONGEST = 20_000
_LARGEST_SHIFT = 4096
_LARGEST_POWER = 1 << 16

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}

_FUNCTIONS = ("sqrt", "cbrt", "root", "ln", "abs")
"""Of sympy, beside its classes of expressions and its constants."""
_TOKEN = re.compile(r"\s+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+|[A-Za-z]\w*|\*\*|[-+*/^(),]")

_REFUSED = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.kill", "os.remove", "os.rename", "os.mkdir"),
    *("os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "os.putenv", "os.utime", "os.chdir"),
    *("subprocess.", "socket.", "ctypes.", "pty.", "shutil.", "urllib.", "http.", "ftplib.", "smtplib.", "signal."),
)


def arithmetic(text: str, *_: Any) -> Any:
    """The value of a literal or of arithmetic on numbers; ValueError for anything else. Stands in for `eval`."""
    if len(text) > _LONGEST:
        raise ValueError("too long")
    return _value(ast.parse(text.strip(), mode="eval").body)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp):
        return _combined(type(node.op), _value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_number(_value(node.operand)))
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def _combined(kind: type[ast.operator], left: Any, right: Any) -> Any:
    left, right = _number(left), _number(right)
    if kind in (ast.LShift, ast.RShift) and isinstance(right, int) and 0 <= right <= _LARGEST_SHIFT:
        return left << right if kind is ast.LShift else left >> right
    if kind is ast.Pow and abs(right) <= _LARGEST_POWER and abs(left) <= _LARGEST_POWER:
        return left**right
    if kind not in _BINARY:
        raise ValueError(f"{kind.__name__} is not allowed")
    return _BINARY[kind](left, right)


def _number(value: Any) -> Any:
    if not isinstance(value, int | float | complex):  # a text times a million, ...
        raise ValueError(f"{type(value).__name__} is no number")
    return value


def plain(text: str, known: Mapping[str, Any] | None = None) -> str:
    """The text, if it is an expression of numbers, variables and sympy's own kinds of expression; else a ValueError.

    What is no name of sympy and none of Python's becomes a variable.
    """
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or len(text) > _LONGEST:
            raise ValueError(f"{text[place : place + 20]!a} has no place in an expression")
        word = token[0]
        if word[0].isalpha() and word not in (known or {}) and not _is_harmless(word):
            raise ValueError(f"{word!a} is neither a variable nor a known function")
        place = token.end()
    return text


def _is_harmless(name: str) -> bool:
    sympy: Any = sys.modules["sympy"]
    meant = vars(sympy).get(name)
    if meant is None:
        return "__" not in name and name not in vars(builtins) and not keyword.iskeyword(name)
    is_expression = isinstance(meant, sympy.Basic) or (isinstance(meant, type) and issubclass(meant, sympy.Basic))
    return is_expression or name in _FUNCTIONS


def guard(package: str) -> None:
    """Put the guards in place in every loaded module of the package, and refuse what no verifier needs."""
    own: Any = import_module("sympy.parsing.sympy_parser").parse_expr

    def parse_expr(text: Any, local_dict: Mapping[str, Any] | None = None, *rest: Any, **named: Any) -> Any:
        return own(plain(str(text), local_dict), local_dict, *rest, **named)

    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            vars(module)["eval"] = arithmetic
        if name.split(".")[0] in (package, "sympy"):
            for attribute, value in list(vars(module).items()):
                if value is own:
                    vars(module)[attribute] = parse_expr
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or event.startswith(_REFUSED):
        raise PermissionError(f"{event} has no place in a verifier")
