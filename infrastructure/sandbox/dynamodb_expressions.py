"""DynamoDB's expressions: conditions and filters, key conditions, updates and projections.

The language is that of "Condition and filter expressions, operators, and functions in DynamoDB",
"Using update expressions in DynamoDB" and "Key condition expressions for the Query operation in
DynamoDB". A tree is nested tuples whose first word says what they are; names and values stay
placeholders in it, so that one expression is parsed once however often it is sent.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from .dynamodb_values import TYPES, Item, Value, add, invalid, normal, ordered, same
from .dynamodb_words import RESERVED

Tree = tuple[Any, ...]
Path = tuple[str | int, ...]

# "Quotas in Amazon DynamoDB", expression parameters
_LENGTH_MAX = 4096
_IN_MAX = 100
_CLAUSES = ("SET", "REMOVE", "ADD", "DELETE")
_FUNCTIONS = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<name>#[A-Za-z0-9_]+)|(?P<value>:[A-Za-z0-9_]+)"
    r"|(?P<number>\d+)|(?P<sign><>|<=|>=|[=<>()\[\],.+-]))"
)


class Expressions:
    """The expressions of one request, with the names and values that it gives for them.

    Every method raises ValidationException for what DynamoDB would not accept.
    """

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._names: Mapping[str, str] = _given(asked, "ExpressionAttributeNames")
        given = _given(asked, "ExpressionAttributeValues")
        self._values = {name: normal(value)[0] for name, value in given.items()}
        self._used: set[str] = set()

    def read(self, what: str, text: str | None) -> Tree | None:
        """Parse the expression of the parameter `what`; None for none."""
        if text is None:
            return None
        tree, used = _parsed(what, text)
        for word in used:
            if word[0] == "#" and word not in self._names:
                raise invalid(
                    f"Invalid {what}: An expression attribute name used in the document path is "
                    f"not defined; attribute name: {word}"
                )
            if word[0] == ":" and word not in self._values:
                raise invalid(
                    f"Invalid {what}: An expression attribute value used in expression is not "
                    f"defined; attribute value: {word}"
                )
        self._used |= used
        self._check(what, tree)
        return tree

    def finish(self) -> None:
        """Refuse names and values that no expression used."""
        for kind, given in (("Names", self._names), ("Values", self._values)):
            unused = [word for word in given if word not in self._used]
            if unused:
                raise invalid(
                    f"Value provided in ExpressionAttribute{kind} unused in expressions: "
                    f"keys: {{{', '.join(unused)}}}"
                )

    # -- conditions ------------------------------------------------------------------------------

    def holds(self, tree: Tree | None, item: Item) -> bool:
        """Whether a condition is true of an item; none is true of any."""
        if tree is None:
            return True
        match tree:
            case ("and", one, other):
                return self.holds(one, item) and self.holds(other, item)
            case ("or", one, other):
                return self.holds(one, item) or self.holds(other, item)
            case ("not", one):
                return not self.holds(one, item)
            case ("compare", sign, one, other):
                return _compare(sign, self._operand(one, item), self._operand(other, item))
            case ("between", one, low, high):
                value = self._operand(one, item)
                return _compare(">=", value, self._operand(low, item)) and _compare(
                    "<=", value, self._operand(high, item)
                )
            case ("in", one, choices):
                value = self._operand(one, item)
                return any(_compare("=", value, self._operand(choice, item)) for choice in choices)
            case ("attribute_exists", path):
                return self._at(path, item) is not None
            case ("attribute_not_exists", path):
                return self._at(path, item) is None
            case ("attribute_type", path, kind):
                value, wanted = self._at(path, item), self._operand(kind, item)
                return value is not None and wanted is not None and wanted["S"] in value
            case ("begins_with", one, other):
                return _begins(self._operand(one, item), self._operand(other, item))
            case ("contains", one, other):
                return _contains(self._operand(one, item), self._operand(other, item))
        raise AssertionError(tree)

    def key_condition(
        self, tree: Tree, hash_name: str, range_name: str | None
    ) -> tuple[Value, str | None, list[Value]]:
        """What a KeyConditionExpression asks: the hash key, and the sign and operands for the
        range key (None and none when it is not named)."""
        parts = [tree[1], tree[2]] if tree[0] == "and" else [tree]
        found: dict[str | int, tuple[str, list[Value]]] = {}
        for part in parts:
            match part:
                case ("compare", sign, ("path", (name,)), ("value", value)) if sign != "<>":
                    asked = sign, [self._values[value]]
                case ("between", ("path", (name,)), ("value", low), ("value", high)):
                    asked = "between", [self._values[low], self._values[high]]
                case ("begins_with", ("path", (name,)), ("value", value)):
                    asked = "begins_with", [self._values[value]]
                case _:
                    raise invalid("Invalid operator used in KeyConditionExpression")
            name = self._name(name)
            if name in found:
                raise invalid("KeyConditionExpressions must only contain one condition per key")
            found[name] = asked
        sign, operands = found.pop(hash_name, ("", []))
        if sign == "":
            raise invalid(f"Query condition missed key schema element: {hash_name}")
        if sign != "=":
            raise invalid("Query key condition not supported")
        if not found:
            return operands[0], None, []
        if range_name is None or range_name not in found:
            raise invalid(f"Query condition missed key schema element: {range_name}")
        return operands[0], *found[range_name]

    def names_in(self, tree: Tree | None) -> set[str | int]:
        """The top-level attributes that a tree names."""
        return {self._name(path[0]) for path in _paths(tree)} if tree is not None else set()

    # -- updates ---------------------------------------------------------------------------------

    def check_update(self, tree: Tree | None, keys: Iterable[str]) -> None:
        """Refuse an update of a key attribute."""
        held = set(keys)
        for path in self.touched(tree):
            name = path[0]
            if name in held:
                raise invalid(
                    f"One or more parameter values were invalid: Cannot update attribute {name}. "
                    "This attribute is part of the key"
                )

    def updated(self, tree: Tree | None, item: Item) -> Item:
        """A new item: all values are those before the update, whatever the order of clauses."""
        root: Value = {"M": item}
        removals: list[Path] = []
        for clause, place, *rest in tree or ():
            path = self._path(place)
            match clause:
                case "SET":
                    root = _with(root, path, self._result(rest[0], item))
                case "REMOVE":
                    removals.append(path)
                case "ADD":
                    root = _with(root, path, _added(_walk(item, path), self._values[rest[0][1]]))
                case "DELETE":
                    left = _deleted(_walk(item, path), self._values[rest[0][1]])
                    if left is not None:
                        root = _with(root, path, left)
                    else:
                        removals.append(path)
        # From the end of a list on, so that the places named stay those of the item before.
        for path in sorted(removals, key=_depth_first, reverse=True):
            root = _without(root, path)
        updated: Item = root["M"]
        return updated

    def touched(self, tree: Tree | None) -> list[Path]:
        """The paths that an update names."""
        return [self._path(path) for _, path, *_ in tree or ()]

    # -- projections -----------------------------------------------------------------------------

    def paths(self, tree: Tree) -> list[Path]:
        """The paths of a projection."""
        return [self._path(path) for path in tree]

    # -- operands --------------------------------------------------------------------------------

    def _name(self, word: str | int) -> str | int:
        return self._names[word] if isinstance(word, str) and word[0] == "#" else word

    def _path(self, tree: Tree) -> Path:
        return tuple(self._name(word) for word in tree[1])

    def _at(self, tree: Tree, item: Item) -> Value | None:
        return _walk(item, self._path(tree))

    def _operand(self, tree: Tree, item: Item) -> Value | None:
        match tree:
            case ("path", _):
                return self._at(tree, item)
            case ("value", name):
                return self._values[name]
            case ("size", inner):
                value = self._operand(inner, item)
                return None if value is None else _size(value)
        raise AssertionError(tree)

    def _result(self, tree: Tree, item: Item) -> Value:
        """What the right side of a SET gives."""
        match tree:
            case ("if_not_exists", path, other):
                value = self._at(path, item)
                return self._result(other, item) if value is None else value
            case ("list_append", one, other):
                first, then = self._result(one, item), self._result(other, item)
                if "L" not in first or "L" not in then:
                    raise invalid(_WRONG_TYPE)
                return {"L": first["L"] + then["L"]}
            case ("+" | "-" as sign, one, other):
                left, right = self._result(one, item), self._result(other, item)
                if "N" not in left or "N" not in right:
                    raise invalid(_WRONG_TYPE)
                return {"N": add(left["N"], right["N"], 1 if sign == "+" else -1)}
        value = self._operand(tree, item)
        if value is None:
            raise invalid(
                "The provided expression refers to an attribute that does not exist in the item"
            )
        return value

    def _check(self, what: str, tree: Tree) -> None:
        """Refuse what can be seen to be wrong before any item is looked at."""
        if what == "UpdateExpression":
            _check_overlaps(what, [self._path(path) for _, path, *_ in tree])
            for clause, _, *rest in tree:
                if clause in ("ADD", "DELETE"):
                    (kind,) = self._values[rest[0][1]]
                    if kind not in ("SS", "NS", "BS") and (clause, kind) != ("ADD", "N"):
                        raise _wrong_operand(what, clause, kind)
        elif what == "ProjectionExpression":
            _check_overlaps(what, self.paths(tree))
        else:
            for node in _nodes(tree):
                self._check_node(what, node)

    def _check_node(self, what: str, node: Tree) -> None:
        match node:
            case ("compare", sign, one, other):
                if one == other:
                    raise invalid(
                        f"Invalid {what}: The first operand must be distinct from the remaining "
                        f"operands for this operator or function; operator: {sign}"
                    )
                if sign in _COMPARE:
                    self._check_scalar(what, sign, (one, other))
            case ("between", _, low, high):
                self._check_scalar(what, "BETWEEN", (low, high))
                if low[0] == high[0] == "value":
                    first, last = self._values[low[1]], self._values[high[1]]
                    if first.keys() != last.keys():
                        raise invalid(
                            f"Invalid {what}: The BETWEEN operator requires same data type for "
                            "lower and upper bounds"
                        )
                    if ordered(first) > ordered(last):
                        raise invalid(
                            f"Invalid {what}: The BETWEEN operator requires upper bound to be "
                            "greater than or equal to lower bound"
                        )
            case ("begins_with", _, ("value", name)):
                (kind,) = self._values[name]
                if kind not in ("S", "B"):
                    raise _wrong_operand(what, "begins_with", kind)
            case ("attribute_type", _, operand):
                value = self._values[operand[1]] if operand[0] == "value" else {}
                if value.get("S") not in TYPES:
                    raise invalid(
                        f"Invalid {what}: Invalid attribute type name found; type: "
                        f"{value.get('S')}, valid types: {{{','.join(TYPES)}}}"
                    )

    def _check_scalar(self, what: str, sign: str, operands: Iterable[Tree]) -> None:
        for operand in operands:
            if operand[0] == "value":
                (kind,) = self._values[operand[1]]
                if kind not in ("S", "N", "B"):
                    raise _wrong_operand(what, sign, kind)


def picked(item: Item, paths: Iterable[Path]) -> Item:
    """What lies at the paths of an item, in the shape it has there."""
    wanted: dict[str | int, Any] = {}
    for path in paths:
        inside = wanted
        for step in path[:-1]:
            inside = inside.setdefault(step, {})
        inside[path[-1]] = None
    found = _pick({"M": item}, wanted)
    return found["M"] if found is not None else {}


_WRONG_TYPE = "An operand in the update expression has an incorrect data type"
_BAD_PATH = "The document path provided in the update expression is invalid for update"


def _given(asked: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    given: Mapping[str, Any] | None = asked.get(name)
    if given is None:
        return {}
    if not given:
        raise invalid(f"{name} must not be empty")
    if not any(key.endswith("Expression") for key in asked):
        raise invalid(f"{name} can only be specified when using expressions")
    return given


def _wrong_operand(what: str, sign: str, kind: str) -> Exception:
    return invalid(
        f"Invalid {what}: Incorrect operand type for operator or function; operator: {sign}, "
        f"operand type: {kind}"
    )


def _check_overlaps(what: str, paths: list[Path]) -> None:
    for number, path in enumerate(paths):
        for other in paths[:number]:
            short = min(len(path), len(other))
            if path[:short] == other[:short]:
                raise invalid(
                    f"Invalid {what}: Two document paths overlap with each other; must remove or "
                    f"rewrite one of these paths; path one: {list(other)}, path two: {list(path)}"
                )


def _compare(sign: str, one: Value | None, other: Value | None) -> bool:
    """Compare two operands; an attribute that is missing, or of another type, is never true
    but for <>."""
    if one is None or other is None:
        return sign == "<>" and one is not other
    if sign == "=":
        return same(one, other)
    if sign == "<>":
        return not same(one, other)
    if one.keys() != other.keys() or not one.keys() & {"S", "N", "B"}:
        return False
    return _COMPARE[sign](ordered(one), ordered(other))


def _begins(one: Value | None, other: Value | None) -> bool:
    if one is None or other is None or one.keys() != other.keys() or not one.keys() & {"S", "B"}:
        return False
    begins: bool = ordered(one).startswith(ordered(other))
    return begins


def _contains(one: Value | None, other: Value | None) -> bool:
    if one is None or other is None:
        return False
    ((kind, content),) = one.items()
    ((wanted_kind, wanted),) = other.items()
    if kind == "L":
        return any(same(element, other) for element in content)
    if kind in ("SS", "NS", "BS"):
        return kind[0] == wanted_kind and wanted in content
    if kind == wanted_kind == "B":
        return ordered(other) in ordered(one)
    return kind == wanted_kind == "S" and wanted in content


def _size(value: Value) -> Value | None:
    """What size() gives: characters of text, bytes, or the number of elements."""
    ((kind, content),) = value.items()
    if kind in ("N", "BOOL", "NULL"):
        return None
    return {"N": str(len(ordered(value) if kind == "B" else content))}


def _walk(item: Item, path: Path) -> Value | None:
    value: Value | None = {"M": item}
    for step in path:
        if value is None:
            return None
        if isinstance(step, str):
            value = value.get("M", {}).get(step)
        else:
            elements = value.get("L", [])
            value = elements[step] if step < len(elements) else None
    return value


def _with(value: Value | None, path: Path, new: Value) -> Value:
    """A copy of `value` in which `new` is at `path`; copies only what lies on the way."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        members = None if value is None else value.get("M")
        if members is None:
            raise invalid(_BAD_PATH)
        return {"M": {**members, step: _with(members.get(step), rest, new)}}
    elements = None if value is None else value.get("L")
    if elements is None or (rest and step >= len(elements)):
        raise invalid(_BAD_PATH)
    if step >= len(elements):
        return {"L": [*elements, new]}
    return {"L": [*elements[:step], _with(elements[step], rest, new), *elements[step + 1 :]]}


def _without(value: Value | None, path: Path) -> Value:
    """A copy of `value` that lacks what is at `path`."""
    step, rest = path[0], path[1:]
    kind = "M" if isinstance(step, str) else "L"
    if value is None or kind not in value:
        raise invalid(_BAD_PATH)
    held = value[kind]
    there = step in held if isinstance(step, str) else step < len(held)
    if rest:
        return _with(value, (step,), _without(held[step] if there else None, rest))
    if not there:
        return value
    if isinstance(step, str):
        return {"M": {name: member for name, member in held.items() if name != step}}
    return {"L": [*held[:step], *held[step + 1 :]]}


def _depth_first(path: Path) -> list[tuple[bool, str | int]]:
    return [(isinstance(step, int), step) for step in path]


def _added(old: Value | None, more: Value) -> Value:
    """ADD: a number plus another (0 when there is none), or the union of two sets."""
    if old is None:
        return more
    ((kind, content),) = more.items()
    if kind not in old:
        raise invalid(_WRONG_TYPE)
    if kind == "N":
        return {"N": add(old["N"], content)}
    return {kind: [*old[kind], *(one for one in content if one not in old[kind])]}


def _deleted(old: Value | None, less: Value) -> Value | None:
    """DELETE: a set without some elements; None when none are left (there is no empty set)."""
    ((kind, content),) = less.items()
    if old is None:
        return None
    if kind not in old:
        raise invalid(_WRONG_TYPE)
    left = [one for one in old[kind] if one not in content]
    return {kind: left} if left else None


def _pick(value: Value | None, wanted: dict[str | int, Any] | None) -> Value | None:
    if wanted is None or value is None:
        return value
    if "M" in value:
        members = {
            name: found
            for name, inside in wanted.items()
            if (found := _pick(value["M"].get(name), inside)) is not None
        }
        return {"M": members} if members else None
    elements = value.get("L", [])
    places = sorted(step for step in wanted if isinstance(step, int) and step < len(elements))
    left = [one for step in places if (one := _pick(elements[step], wanted[step])) is not None]
    return {"L": left} if left else None


def _nodes(tree: Any) -> Iterator[Tree]:
    if isinstance(tree, tuple) and tree and tree[0] not in ("path", "value"):
        yield tree
        for part in tree:
            yield from _nodes(part)


def _paths(tree: Tree) -> Iterator[tuple[str | int, ...]]:
    if tree[0] == "path":
        yield tree[1]
    else:
        for part in tree:
            if isinstance(part, tuple) and part:
                yield from _paths(part)


# -- parsing -------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _parsed(what: str, text: str) -> tuple[Tree, frozenset[str]]:
    """The tree of an expression and the placeholders in it."""
    if not text.strip():
        raise invalid(f"Invalid {what}: The expression can not be empty;")
    if len(text.encode()) > _LENGTH_MAX:
        raise invalid(
            f"Invalid {what}: Expression size has exceeded the maximum allowed size; expression "
            f"size: {len(text.encode())}"
        )
    parser = _Parser(what, text)
    match what:
        case "UpdateExpression":
            tree = parser.update()
        case "ProjectionExpression":
            tree = tuple(parser.listed(parser.path))
        case _:
            tree, _ = parser.condition()
    parser.end()
    return tree, frozenset(parser.used)


class _Parser:
    """One expression being read, from left to right."""

    def __init__(self, what: str, text: str) -> None:
        self._what = what
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        self._place = 0
        self.used: set[str] = set()
        position, end = 0, len(text.rstrip())
        while position < end:
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._syntax(text[position:].strip()[:1])
            self._tokens.append((found.lastgroup or "", found[0].strip()))
            position = found.end()

    def condition(self) -> tuple[Tree, bool]:
        """Alternatives; the flag says whether the whole is one pair of parentheses."""
        tree, wrapped = self._conjunction()
        while self._take_word("OR"):
            other, _ = self._conjunction()
            tree, wrapped = ("or", tree, other), False
        return tree, wrapped

    def update(self) -> Tree:
        seen: set[str] = set()
        actions: list[Tree] = []
        while self._place < len(self._tokens):
            clause = self._next()[1].upper()
            if clause not in _CLAUSES:
                raise self._syntax()
            if clause in seen:
                raise invalid(
                    f'Invalid {self._what}: The "{clause}" section can only be used once in an '
                    "update expression;"
                )
            seen.add(clause)
            match clause:
                case "SET":
                    actions += self.listed(self._assignment)
                case "REMOVE":
                    actions += [("REMOVE", path) for path in self.listed(self.path)]
                case _:
                    pairs = self.listed(lambda: (self.path(), self._value()))
                    actions += [(clause, path, value) for path, value in pairs]
        return tuple(actions)

    def listed(self, one: Callable[[], Any]) -> list[Any]:
        found = [one()]
        while self._take(","):
            found.append(one())
        return found

    def path(self) -> Tree:
        steps: list[str | int] = [self._path_name()]
        while True:
            if self._take("."):
                steps.append(self._path_name())
            elif self._take("["):
                kind, text = self._next()
                if kind != "number":
                    raise self._syntax()
                steps.append(int(text))
                self._expect("]")
            else:
                return "path", tuple(steps)

    def end(self) -> None:
        if self._place < len(self._tokens):
            self._place += 1
            raise self._syntax()

    def _conjunction(self) -> tuple[Tree, bool]:
        tree, wrapped = self._negation()
        while self._take_word("AND"):
            other, _ = self._negation()
            tree, wrapped = ("and", tree, other), False
        return tree, wrapped

    def _negation(self) -> tuple[Tree, bool]:
        if self._take_word("NOT"):
            return ("not", self._negation()[0]), False
        if self._take("("):
            tree, wrapped = self.condition()
            self._expect(")")
            if wrapped:
                raise invalid(f"Invalid {self._what}: The expression has redundant parentheses;")
            return tree, True
        return self._comparison(), False

    def _comparison(self) -> Tree:
        if (name := self._function()) is not None and name != "size":
            if name not in _FUNCTIONS:
                raise invalid(f"Invalid {self._what}: Invalid function name; function: {name}")
            operands = self.listed(self._operand)
            self._expect(")")
            if len(operands) != _FUNCTIONS[name]:
                raise invalid(
                    f"Invalid {self._what}: Incorrect number of operands for operator or "
                    f"function; operator or function: {name}, number of operands: {len(operands)}"
                )
            if name.startswith("attribute_") and operands[0][0] != "path":
                raise invalid(
                    f"Invalid {self._what}: Operator or function requires a document path; "
                    f"operator or function: {name}"
                )
            return name, *operands
        one = self._size() if name == "size" else self._operand()
        if self._take_word("BETWEEN"):
            low = self._operand()
            if not self._take_word("AND"):
                self._place += 1
                raise self._syntax()
            return "between", one, low, self._operand()
        if self._take_word("IN"):
            self._expect("(")
            choices = self.listed(self._operand)
            self._expect(")")
            if len(choices) > _IN_MAX:
                raise invalid(
                    f"Invalid {self._what}: The IN operator is provided with too many operands; "
                    f"number of operands: {len(choices)}"
                )
            return "in", one, tuple(choices)
        sign = self._next()[1]
        if sign not in _COMPARE and sign not in ("=", "<>"):
            raise self._syntax()
        return "compare", sign, one, self._operand()

    def _assignment(self) -> Tree:
        path = self.path()
        self._expect("=")
        result = self._term()
        for sign in ("+", "-"):
            if self._take(sign):
                result = (sign, result, self._term())
                break
        return "SET", path, result

    def _term(self) -> Tree:
        name = self._function()
        if name is None:
            return self._operand()
        if name not in ("if_not_exists", "list_append"):
            raise invalid(f"Invalid {self._what}: Invalid function name; function: {name}")
        one = self.path() if name == "if_not_exists" else self._term()
        self._expect(",")
        other = self._term()
        self._expect(")")
        return name, one, other

    def _operand(self) -> Tree:
        if self._function() == "size":
            return self._size()
        return self._value() if self._peek()[0] == "value" else self.path()

    def _size(self) -> Tree:
        inner = self._operand()
        self._expect(")")
        return "size", inner

    def _value(self) -> Tree:
        kind, text = self._next()
        if kind != "value":
            raise self._syntax()
        self.used.add(text)
        return "value", text

    def _path_name(self) -> str:
        kind, text = self._next()
        if kind == "name":
            self.used.add(text)
        elif kind != "word":
            raise self._syntax()
        elif text.lower() in RESERVED:
            raise invalid(
                f"Invalid {self._what}: Attribute name is a reserved keyword; reserved keyword: "
                f"{text}"
            )
        return text

    def _function(self) -> str | None:
        """The name of a function whose operands follow; takes the name and the parenthesis."""
        after = self._tokens[self._place + 1 : self._place + 2]
        if self._peek()[0] != "word" or after != [("sign", "(")]:
            return None
        if self._peek()[1].upper() in ("IN", "AND", "OR", "NOT", "BETWEEN"):
            return None
        self._place += 2
        return self._tokens[self._place - 2][1]

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._place += 1
        return token

    def _take(self, sign: str) -> bool:
        if self._peek() != ("sign", sign):
            return False
        self._place += 1
        return True

    def _take_word(self, word: str) -> bool:
        kind, text = self._peek()
        if kind != "word" or text.upper() != word:
            return False
        self._place += 1
        return True

    def _expect(self, sign: str) -> None:
        if self._next() != ("sign", sign):
            raise self._syntax()

    def _syntax(self, token: str | None = None) -> Exception:
        """The error at the token read last, or at `token`."""
        before = [text for _, text in self._tokens[max(0, self._place - 2) : self._place + 1]]
        if token is None:
            last = self._tokens[self._place - 1 : self._place]
            token = last[0][1] if last else "<EOF>"
        return invalid(
            f'Invalid {self._what}: Syntax error; token: "{token}", near: "{" ".join(before)}"'
        )
