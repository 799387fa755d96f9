r"""Docker's templates for lists: the part of Go's text/template that people type. Pure.

``{{.Name}}\t{{upper .State}}``, pipes, ``if``, ``range``, ``with``, ``$i, $v``, comparisons,
``printf`` and Docker's own functions (``json``, ``join``, ``split``, ``truncate``, ``pad``).
Not here: ``define``, ``template``, ``block``, ``break``, ``continue``, variables that are set
by hand, methods. What is not here, and every field a row does not have, is refused by its
column, never left out. ``orchestrator.cli.show.formats`` is the only user; it imports this
when there is a template, so it loads nothing but re and json.
"""

from __future__ import annotations

import json
import re

from orchestrator.cli.show.functions import FUNCTIONS, VERB, go, printf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    Token = tuple[str, str, int, int]  # kind, text, where it begins, where it ends
    Node = tuple[Any, ...]

TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:\\.|[^"\\])*")|(?P<raw>`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)
    |(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<dot>\.)|(?P<var>\$\w*)|(?P<word>[A-Za-z_]\w*)
    |(?P<mark>:=|[()|,=])""",
    re.VERBOSE,
)
COMMENT = re.compile(r"\s*/\*.*?\*/\s*(?=-?\}\})", re.DOTALL)
CLOSING = re.compile(r"\}\}|(?:\s+|(?<=\s))-\}\}")
BLOCKS = ("if", "range", "with")
REFUSED = ("define", "template", "block", "break", "continue")


class BadTemplate(Exception):
    """The template cannot be used; ``column`` counts from 1."""

    def __init__(self, column: int, message: str, hint: str = "") -> None:
        self.column = column
        self.hint = hint
        super().__init__(message)


class Headings:
    """Stands for a row in the line of headings: every field is its heading."""

    def __init__(self, of: Callable[[str], str]) -> None:
        self.of = of


# Reading


class _Reader:
    """One pass over the text; nested blocks by recursion."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.trim = False  # the action before ended in -}}

    def nodes(self, within: str = "") -> tuple[list[Node], str, list[Token], int]:
        """Return nodes up to the end of the block: with what ended it, its words and column."""
        found: list[Node] = []
        while True:
            start = self.text.find("{{", self.at)
            if start < 0:
                if within:
                    raise BadTemplate(len(self.text) + 1, f"{{{{{within}}}}} has no {{{{end}}}}")
                found.append(("text", self._text(len(self.text), trim=False)))
                return found, "", [], 0
            trim = self.text[start + 2 : start + 4] in ("- ", "-\t", "-\n")
            found.append(("text", self._text(start, trim=trim)))
            self.at = start + (3 if trim else 2)
            tokens = self._action(start)
            if not tokens:
                continue
            kind, word, column = tokens[0][0], tokens[0][1], tokens[0][2] + 1
            if kind == "word" and word in ("end", "else"):
                if not within:
                    raise BadTemplate(column, f"{{{{{word}}}}} without a block")
                return found, word, tokens[1:], column
            found.append(self._node(kind, word, column, tokens))

    def _node(self, kind: str, word: str, column: int, tokens: list[Token]) -> Node:
        if kind == "word" and word in BLOCKS:
            return self._block(word, tokens[1:], column)
        if kind == "word" and word in REFUSED:
            known = ", ".join((*BLOCKS, "else", "end", *sorted(FUNCTIONS)))
            raise BadTemplate(column, f"{{{{{word}}}}} is not known here", f"known: {known}")
        marked = [token for token in tokens if token[1] in (":=", "=") and token[0] == "mark"]
        if marked:
            raise BadTemplate(marked[0][2] + 1, "variables can be set by range only")
        return ("out", _pipeline(tokens, column))

    def _text(self, end: int, *, trim: bool) -> str:
        text = self.text[self.at : end]
        if self.trim:
            text = text.lstrip()
        self.trim = False
        return text.rstrip() if trim else text

    def _action(self, opened: int) -> list[Token]:
        """Return the tokens up to the closing braces, which are left behind."""
        comment = COMMENT.match(self.text, self.at)
        if comment:
            self.at = comment.end()
        tokens: list[Token] = []
        while True:
            closing = CLOSING.match(self.text, self.at)
            if closing:
                if not tokens and not comment:
                    raise BadTemplate(opened + 1, "{{}} says nothing")
                self.at = closing.end()
                self.trim = len(closing.group()) > 2
                return tokens
            found = TOKEN.match(self.text, self.at)
            if found is None:
                if self.at >= len(self.text):
                    raise BadTemplate(opened + 1, "{{ without }}")
                raise BadTemplate(self.at + 1, f"{self.text[self.at]!r} makes no sense here")
            if found.lastgroup != "space":
                kind = found.lastgroup or ""
                tokens.append((kind, found.group(), found.start(), found.end()))
            self.at = found.end()

    def _block(self, word: str, tokens: list[Token], column: int) -> Node:
        names: list[str] = []
        if word == "range" and any(token[1] == ":=" for token in tokens):
            cut = [token[1] for token in tokens].index(":=")
            names = [token[1] for token in tokens[:cut] if token[1] != ","]
            if not names or len(names) > 2 or not all(name.startswith("$") for name in names):
                raise BadTemplate(column, "range sets one or two variables: $i, $v := .Field")
            tokens = tokens[cut + 1 :]
        pipe = _pipeline(tokens, column)
        body, ended, rest, at = self.nodes(word)
        other: list[Node] = []
        if ended == "else":
            if rest and rest[0][1] in ("if", "with"):
                other = [self._block(rest[0][1], rest[1:], at)]
            else:
                other, ended, _, at = self.nodes(word)
                if ended == "else":
                    raise BadTemplate(at, "a second {{else}}")
        return (word, names, pipe, body, other)


def parse(text: str) -> list[Node]:
    """Return the template, read. Raises BadTemplate."""
    return _Reader(text).nodes()[0]


def _pipeline(tokens: list[Token], column: int) -> Node:
    """Return ``("pipe", [command, ...])``; a command is a list of operands."""
    commands: list[list[Node]] = [[]]
    at = 0
    while at < len(tokens):
        kind, text, start, _ = tokens[at]
        if kind == "mark" and text == "|":
            if not commands[-1]:
                raise BadTemplate(start + 1, "nothing stands before |")
            commands.append([])
            at += 1
        else:
            operand, at = _operand(tokens, at)
            commands[-1].append(operand)
    if not commands[-1]:
        raise BadTemplate(column, "something is missing here")
    for number, command in enumerate(commands):
        head = command[0]
        if head[0] != "call" and (number or len(command) > 1) and head[0] != "field":
            raise BadTemplate(head[-1], "this is no function: it takes nothing")
    return ("pipe", commands)


def _operand(tokens: list[Token], at: int) -> tuple[Node, int]:
    kind, text, start, end = tokens[at]
    column = start + 1
    if text == "(":
        close = _closing(tokens, at)
        path, after = _fields_behind(tokens, close)
        return ("paren", _pipeline(tokens[at + 1 : close], column), path, column), after
    if kind == "var":
        path, after = _fields_behind(tokens, at)
        return ("var", text, path, column), after
    if at + 1 < len(tokens) and tokens[at + 1][2] == end and tokens[at + 1][0] == "field":
        raise BadTemplate(tokens[at + 1][2] + 1, "a field of what has none")
    return _simple(kind, text, column), at + 1


def _closing(tokens: list[Token], at: int) -> int:
    depth = 0
    for close in range(at, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[close][1], 0)
        if depth == 0:
            return close
    raise BadTemplate(tokens[at][2] + 1, "( without )")


def _simple(kind: str, text: str, column: int) -> Node:
    match kind:
        case "field":
            return ("field", text[1:].split("."), column)
        case "dot":
            return ("field", [], column)
        case "string":
            return ("value", _unquoted(text, column), column)
        case "raw":
            return ("value", text[1:-1], column)
        case "number":
            return ("value", float(text) if "." in text else int(text), column)
        case "word":
            return _word(text, column)
        case _:
            raise BadTemplate(column, f"{text!r} makes no sense here")


def _fields_behind(tokens: list[Token], at: int) -> tuple[list[str], int]:
    if at + 1 < len(tokens) and tokens[at + 1][0] == "field" and tokens[at + 1][2] == tokens[at][3]:
        return tokens[at + 1][1][1:].split("."), at + 2
    return [], at + 1


def _word(text: str, column: int) -> Node:
    constants: dict[str, Any] = {"true": True, "false": False, "nil": None}
    if text in constants:
        return ("value", constants[text], column)
    if text not in FUNCTIONS and text not in ("and", "or"):
        known = ", ".join(sorted((*FUNCTIONS, "and", "or")))
        raise BadTemplate(column, f"there is no function {text}", f"functions: {known}")
    return ("call", text, column)


def _unquoted(text: str, column: int) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        raise BadTemplate(column, f"{text} is no string") from None
    return str(found)


# Execution


class Printing:
    """One template over one row (or over the headings)."""

    def __init__(
        self, row: Any, known: frozenset[str], safe: Callable[[str], str], *, exact: Any = None
    ) -> None:
        self.known = known  # fields of any row of the list: one may lack what another has
        self.safe = safe
        self.heading = isinstance(row, Headings)
        # For programs, as --format json has it: {{json .}}
        self.exact = row if exact is None else exact
        self.row = row if self.heading else self._safe(row)

    def text(self, nodes: Sequence[Node]) -> str:
        """Return what the template prints. Raises BadTemplate."""
        return "".join(self._texts(nodes, self.row, {"$": self.row}))

    def _texts(self, nodes: Sequence[Node], dot: Any, names: Mapping[str, Any]) -> Iterator[str]:
        for node in nodes:
            match node[0]:
                case "text":
                    yield node[1]
                case "out":
                    yield go(self._pipe(node[1], dot, names))
                case "range":
                    yield from self._range(node, dot, names)
                case _:
                    _, _, pipe, body, other = node
                    found = self._pipe(pipe, dot, names)
                    inner = found if node[0] == "with" and not self.heading else dot
                    if found or self.heading:
                        yield from self._texts(body, inner, names)
                    else:
                        yield from self._texts(other, dot, names)

    def _range(self, node: Node, dot: Any, names: Mapping[str, Any]) -> Iterator[str]:
        _, variables, pipe, body, other = node
        found = self._pipe(pipe, dot, names)
        pairs: list[tuple[Any, Any]]
        if self.heading:
            pairs = [("", dot)]
        elif isinstance(found, dict):
            pairs = sorted(found.items())
        elif isinstance(found, list | tuple):
            pairs = list(enumerate(found))
        elif not found:
            pairs = []
        else:
            raise BadTemplate(pipe[1][0][0][-1], f"range needs a list, not {go(found)!r}")
        for key, value in pairs:
            own = dict(
                zip(variables, (key, value)[-len(variables) :] if variables else (), strict=True)
            )
            yield from self._texts(body, value, {**names, **own})
        if not pairs:
            yield from self._texts(other, dot, names)

    def _pipe(self, pipe: Node, dot: Any, names: Mapping[str, Any]) -> Any:
        value: Any = None
        for number, (head, *rest) in enumerate(pipe[1]):
            last = [value] if number else []
            if head[0] == "call" and head[1] in ("and", "or"):
                value = self._logic(head, rest, last, dot, names)
                continue
            arguments = [self._value(operand, dot, names) for operand in rest] + last
            if head[0] == "call":
                value = self._call(head[1], arguments, head[2])
            elif arguments:
                value = self._method(head, arguments, dot)
            else:
                value = self._value(head, dot, names)
        return value

    def _logic(
        self, head: Node, rest: Sequence[Node], last: list[Any], dot: Any, names: Mapping[str, Any]
    ) -> Any:
        """Return the first operand that decides; the others are not looked at."""
        if not rest and not last:
            raise BadTemplate(head[2], f"{head[1]}: needs at least one value")
        found: Any = None
        for operand in rest:
            found = self._value(operand, dot, names)
            if bool(found) == (head[1] == "or"):
                return found
        return last[0] if last else found

    def _call(self, name: str, arguments: list[Any], column: int) -> Any:
        if self.heading:
            named = [word for word in arguments if isinstance(word, str)]
            if name == "printf" and named:
                return printf(VERB.sub(_as_text, named[0]), *arguments[1:])
            if not name.startswith("print"):
                return arguments[0] if arguments else ""
        if name == "json" and len(arguments) == 1 and arguments[0] is self.row:
            arguments = [self.exact]
        try:
            return FUNCTIONS[name](*arguments)
        except TypeError:
            shown = ", ".join(repr(go(word)) for word in arguments) or "nothing"
            raise BadTemplate(column, f"{name} cannot be used with {shown}") from None
        except ValueError as exc:
            raise BadTemplate(column, f"{name} {exc}") from None

    def _method(self, head: Node, arguments: list[Any], dot: Any) -> Any:
        """Docker's one method of a row: ``{{.Label "key"}}``."""
        if head[0] != "field" or head[1] != ["Label"] or len(arguments) != 1:
            raise BadTemplate(head[-1], "this is no function: it takes nothing")
        if self.heading:
            return str(arguments[0]).rpartition(".")[2].replace("-", " ").replace("_", " ").upper()
        labels = dot.get("labels") if isinstance(dot, dict) else None
        return str((labels or {}).get(arguments[0], ""))

    def _value(self, operand: Node, dot: Any, names: Mapping[str, Any]) -> Any:
        kind = operand[0]
        if kind == "value":
            return operand[1]
        if kind == "call":
            return self._call(operand[1], [], operand[2])
        if kind == "paren":
            return self._fields(
                self._pipe(operand[1], dot, names), operand[2], operand[3], strict=False
            )
        if kind == "var":
            if operand[1] not in names:
                raise BadTemplate(operand[3], f"there is no variable {operand[1]}")
            return self._fields(names[operand[1]], operand[2], operand[3])
        return self._fields(dot, operand[1], operand[2])

    def _fields(self, value: Any, path: Sequence[str], column: int, *, strict: bool = True) -> Any:
        for depth, name in enumerate(path):
            if isinstance(value, Headings):
                value = value.of(path[-1])
                break
            if not isinstance(value, dict):
                raise BadTemplate(column, f".{name}: {go(value)!r} has no fields")
            if name not in value and strict and depth == 0:
                top = value is self.row
                if top and name in self.known:
                    return ""
                raise _no_field(name, self.known if top else value, column)
            value = value.get(name)
        if isinstance(value, Headings):
            return value.of("")
        return value

    def _safe(self, value: Any) -> Any:
        """Return it with nothing in it that a terminal would take for a command."""
        if isinstance(value, str):
            return self.safe(value)
        if isinstance(value, dict):
            return {self._safe(key): self._safe(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._safe(inner) for inner in value]
        return value


def _as_text(found: re.Match[str]) -> str:
    return found.group() if found.group().endswith("%") else f"{found.group()[:-1]}s"


def _no_field(name: str, known: Mapping[str, Any] | frozenset[str], column: int) -> BadTemplate:
    import difflib  # only after a typing error

    lower = {field.lower(): field for field in sorted(known)}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    meant = f"; did you mean .{lower[near[0]]}?" if near else ""
    fields = ", ".join(sorted(known)) or "none"
    return BadTemplate(column, f"there is no field .{name}{meant}", f"fields: {fields}")
