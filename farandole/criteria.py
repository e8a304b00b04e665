"""The closed language of conditions: compiled once, typed against the schema, explained.

A condition compares fields with literals or with other fields and joins such comparisons with and, or, not.
It never means "no" when it cannot be judged: a field that is missing, empty, or of another type raises
CriteriaError, and the event becomes a dead letter.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from farandole.errors import DeclarationError, FarandoleError

NODES = (
    "And", "Attribute", "BoolOp", "Compare", "Constant", "Eq", "Expression", "Gt", "GtE", "In", "List", "Load",
    "Lt", "LtE", "Name", "Not", "NotEq", "NotIn", "Or", "Set", "Tuple", "UnaryOp", "USub",
)  # fmt: skip
"""Every syntax node of the language. It does not grow: what does not fit is a step's business."""

_MAX_TEXT = 2_000
_SIGNS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_COLLECTIONS = (ast.List, ast.Tuple, ast.Set)
_NUMBERS = (int, float, Decimal)


class CriteriaError(FarandoleError):
    """A condition that cannot be judged for this event: a field is missing, empty or of another type."""


class Clause(NamedTuple):
    """One and-clause of a condition as it went: `verdict` None means that it could not be judged, and `problem` why."""

    text: str
    verdict: bool | None
    values: dict[str, Any]
    problem: str = ""


class Criteria:
    """A compiled condition. Equal texts are equal conditions.

    >>> large = criteria("table == 'flights' and rows > 1_000")
    >>> large.test({"table": "flights", "rows": 5})
    False
    >>> large.explain({"table": "flights", "rows": 5})[1]
    Clause(text='rows > 1000', verdict=False, values={'rows': 5}, problem='')
    """

    __slots__ = ("_tree", "fields", "test", "text")

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self._tree = _parse(self.text)
        self.fields: tuple[str, ...] = _fields(self._tree) if self._tree is not None else ()
        self.test: Callable[[Mapping[str, Any]], bool] = _compile(self._tree, self.text)
        """Whether a decoded value meets the condition. Raises CriteriaError where that cannot be judged."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Criteria) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"criteria({self.text!r})"

    def explain(self, value: Mapping[str, Any]) -> list[Clause]:
        """The verdict on each and-clause, with the values it saw."""
        return [_explained(clause, value) for clause in self.clauses]

    @property
    def clauses(self) -> tuple[ast.expr, ...]:
        """The syntax trees of the and-clauses."""
        tree = self._tree
        if tree is None:
            return ()
        return tuple(tree.values) if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else (tree,)

    def typed(self, schema: Mapping[str, Any]) -> list[str]:
        """What cannot be right, judged by an Avro schema (for a join: a record with a field per signal)."""
        from farandole.kinds import typed

        return [problem for clause in self.clauses for problem in typed(clause, schema)]


@lru_cache(maxsize=1_024)
def criteria(text: str) -> Criteria:
    """The compiled condition; an empty text is met by every event. Raises DeclarationError for bad syntax."""
    return Criteria(text)


def _parse(text: str) -> ast.expr | None:
    if not text:
        return None
    if len(text) > _MAX_TEXT:
        raise DeclarationError(
            f"a condition of {len(text)} characters, at most {_MAX_TEXT}", hint="decide in a step, and emit an event"
        )
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad(text, str(getattr(error, "msg", error))) from None
    for node in ast.walk(tree):
        name = type(node).__name__
        if name not in NODES:
            raise _bad(text, f"{_WORDS.get(name, name)} cannot stand in a condition")
    _condition(tree.body, text)
    return tree.body


_WORDS = {
    "Call": "a call", "BinOp": "arithmetic", "ListComp": "a comprehension", "SetComp": "a comprehension",
    "GeneratorExp": "a comprehension", "DictComp": "a comprehension", "JoinedStr": "an f-string", "Lambda": "a lambda",
    "Subscript": "an index", "IfExp": "an if", "Is": "`is` (write ==)", "IsNot": "`is not` (write !=)",
    "NamedExpr": "an assignment", "Starred": "a star", "Dict": "a dict",
}  # fmt: skip


def _bad(text: str, why: str) -> DeclarationError:
    return DeclarationError(
        f"`{text}`: {why}",
        hint="compare fields with == != < <= > >= in, not in, joined by and, or, not: table == 'flights' and rows > 0",
    )


def _condition(node: ast.expr, text: str) -> None:
    """Refuse what is no condition: a literal alone, a comparison without a field, a list of fields."""
    match node:
        case ast.BoolOp():
            for value in node.values:
                _condition(value, text)
        case ast.UnaryOp(op=ast.Not()):
            _condition(node.operand, text)
        case ast.Compare():
            _comparison(node, text)
        case _ if not _is_field(node):
            raise _bad(text, f"`{ast.unparse(node)}` is no condition")


def _comparison(node: ast.Compare, text: str) -> None:
    sides = [node.left, *node.comparators]
    for side in sides:
        if not _is_field(side) and not is_literal(side):
            raise _bad(text, f"`{ast.unparse(side)}` is neither a field nor a literal")
    if not any(map(_is_field, sides)):
        raise _bad(text, "it looks at no field")
    if isinstance(node.left, _COLLECTIONS):
        raise _bad(text, f"`{ast.unparse(node.left)}` cannot stand before {_SIGNS[type(node.ops[0])]}")
    for sign, side in zip(node.ops, node.comparators, strict=True):
        member = isinstance(sign, ast.In | ast.NotIn)
        if not _is_field(side) and member != isinstance(side, _COLLECTIONS):
            raise _bad(text, f"`{ast.unparse(side)}` cannot stand after {_SIGNS[type(sign)]}")


def _is_field(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def is_literal(node: ast.expr) -> bool:
    """A text, number, True, False, None, or a collection of such."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return all(is_literal(e) and not isinstance(e, _COLLECTIONS) for e in node.elts)
    if isinstance(node, ast.UnaryOp):
        operand = node.operand
        return (
            isinstance(node.op, ast.USub) and isinstance(operand, ast.Constant) and type(operand.value) in (int, float)
        )
    return isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None)


def path_of(node: ast.expr) -> tuple[str, ...]:
    """The path of a field: ``weather.interval.start`` is ("weather", "interval", "start"); empty for a literal."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.append(node.attr)
        node = node.value
    return (node.id, *reversed(path)) if isinstance(node, ast.Name) else ()


def _fields(tree: ast.expr) -> tuple[str, ...]:
    found: dict[str, None] = {}

    def look(node: ast.AST) -> None:
        if isinstance(node, ast.expr) and (path := path_of(node)):
            found[".".join(path)] = None
            return
        for child in ast.iter_child_nodes(node):
            look(child)

    look(tree)
    return tuple(found)


class _Writer:
    """Writes the Python text of a condition: a fast test for the usual type, a call for everything else."""

    def __init__(self) -> None:
        self.count = 0

    def condition(self, node: ast.expr) -> str:
        match node:
            case ast.BoolOp():
                word = " and " if isinstance(node.op, ast.And) else " or "
                return "(" + word.join(map(self.condition, node.values)) + ")"
            case ast.UnaryOp():
                return f"(not {self.condition(node.operand)})"
            case ast.Compare():
                sides = [node.left, *node.comparators]
                pairs = zip(sides, node.ops, sides[1:], strict=False)
                return "(" + " and ".join(self.comparison(a, _SIGNS[type(sign)], b) for a, sign, b in pairs) + ")"
        return f"truth({self.field(node)}, {'.'.join(path_of(node))!r})"

    def comparison(self, left: ast.expr, sign: str, right: ast.expr) -> str:
        text = f"{ast.unparse(left)} {sign} {ast.unparse(right)}"
        a, b = self.value(left), self.value(right)
        slow = f"compare({a}, {sign!r}, {b}, {text!r})"
        if not _is_field(left):
            return slow
        self.count += 1
        x, y = f"x{self.count}", f"y{self.count}"
        if _is_field(right):
            if sign not in ("==", "!="):
                return slow
            alike = f"({x} := {a}).__class__ is ({y} := {b}).__class__ and {x} is not None"
            return f"({x} {sign} {y} if {alike} else compare({x}, {sign!r}, {y}, {text!r}))"
        literal = ast.literal_eval(right)
        if literal is None and sign in ("==", "!="):
            return f"({a} is {'not ' * (sign == '!=')}None)"
        kinds = {type(e) for e in literal} if isinstance(literal, list | tuple | set) else {type(literal)}
        if len(kinds) != 1 or not kinds <= {str, int}:
            return slow
        kind = kinds.pop().__name__
        return f"({x} {sign} {b} if ({x} := {a}).__class__ is {kind} else compare({x}, {sign!r}, {b}, {text!r}))"

    def value(self, node: ast.expr) -> str:
        return self.field(node) if _is_field(node) else repr(ast.literal_eval(node))

    def field(self, node: ast.expr) -> str:
        return "e" + "".join(f"[{part!r}]" for part in path_of(node))


def _compile(tree: ast.expr | None, text: str) -> Callable[[Mapping[str, Any]], bool]:
    if tree is None:
        return lambda _value: True
    body = _Writer().condition(tree)
    code = (
        f"def test(e):\n try:\n  return {body}\n except CriteriaError:\n  raise\n"
        f" except Exception as error:\n  raise failed({text!r}, e, error) from error\n"
    )
    scope: dict[str, Any] = {"compare": compare, "truth": _truth, "failed": _failed, "CriteriaError": CriteriaError}
    exec(compile(code, f"<criteria {text}>", "exec"), scope)  # noqa: S102 - written by _Writer from whitelisted nodes
    test: Callable[[Mapping[str, Any]], bool] = scope["test"]
    return test


def _failed(text: str, value: Mapping[str, Any], error: Exception) -> CriteriaError:
    for name in criteria(text).fields:
        try:
            _get(value, name)
        except CriteriaError as missing:
            return missing
    return _unclear(text, str(error))


def _unclear(text: str, why: str) -> CriteriaError:
    return CriteriaError(f"`{text}` cannot be judged: {why}", hint="mend the criteria or the producer, then redrive")


def _get(value: Any, path: str) -> Any:
    at = value
    for part in path.split("."):
        if not isinstance(at, Mapping) or part not in at:
            raise _unclear(path, f"the event has no `{path}`")
        at = at[part]
    return at


def _truth(value: Any, path: str) -> bool:
    if value.__class__ is bool:
        return bool(value)
    raise _unclear(path, f"it is {value!r}, neither true nor false")


def compare(left: Any, sign: str, right: Any, text: str) -> bool:
    """Compare two values of any Avro types. Raises CriteriaError where they cannot be compared."""
    if sign in ("in", "not in"):
        return _member(left, right, text) == (sign == "in")
    if left is None or right is None:
        raise _unclear(text, "it is empty (null)")
    left, right = _alike(left, right, text), _alike(right, left, text)
    if sign in ("==", "!="):
        return bool(left == right) == (sign == "==")
    if isinstance(left, bool | Mapping | list):
        raise _unclear(text, f"{left!r} has no order")
    results = {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}
    return bool(results[sign])


def _member(item: Any, many: Any, text: str) -> bool:
    if item is None and None not in (many if isinstance(many, list | tuple | set) else ()):
        raise _unclear(text, "it is empty (null)")
    if not isinstance(many, list | tuple | set | frozenset):
        raise _unclear(text, f"{many!r} is no list")
    return any((item is None) == (e is None) and (e is None or compare(item, "==", e, text)) for e in many)


def _alike(value: Any, other: Any, text: str) -> Any:
    """The value, made comparable with the other one: texts are read as times where the other is a time."""
    if isinstance(value, str) and isinstance(other, date):
        return moment(value, date_only=not isinstance(other, datetime), text=text)
    if isinstance(value, float) and isinstance(other, Decimal):
        return Decimal(repr(value))
    if isinstance(value, bool) != isinstance(other, bool) or not (
        (isinstance(value, _NUMBERS) and isinstance(other, _NUMBERS))
        or isinstance(value, type(other))
        or isinstance(other, type(value))
        or (isinstance(other, str) and isinstance(value, date))
    ):
        raise _unclear(text, f"{value!r} and {other!r} are of different types")
    return value


def moment(value: str, *, date_only: bool = False, text: str = "") -> date:
    """A time or date written as text, in UTC unless it says otherwise. Raises CriteriaError if it is none."""
    try:
        if date_only:
            return date.fromisoformat(value)
        read = datetime.fromisoformat(value)
    except ValueError:
        raise _unclear(text or value, f"{value!r} is no {'date' if date_only else 'time'}") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def _explained(clause: ast.expr, value: Mapping[str, Any]) -> Clause:
    text = ast.unparse(clause)
    one = criteria(text)
    values: dict[str, Any] = {}
    for name in one.fields:
        try:
            values[name] = _get(value, name)
        except CriteriaError:
            values[name] = None
    try:
        return Clause(text, one.test(value), values)
    except CriteriaError as error:
        return Clause(text, None, values, error.message)
