"""YAML text -> trees with positions, as Compose reads YAML.

``specs.compose.load`` calls :func:`parse` once per file. PyYAML's C scanner
gives events; everything above them is here, because Compose differs from YAML
1.1: ``on`` and ``22:22`` are strings, ``0o17`` and ``017`` are 15, a repeated key
is an error, ``<<`` merges, and ``!reset`` / ``!override`` name paths to remove
from what earlier files gave. Aliases are expanded here under a budget, so a
small file cannot become a huge model.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from specs.compose.reading.tree import Map, Seq, SourceMark, Timestamp
from specs.problems import Position

if TYPE_CHECKING:
    from specs.findings import Findings

MAX_NODES = 100_000  # nodes of one document as written
MAX_EXPANDED = 200_000  # nodes after aliases are expanded
MAX_DEPTH = 100

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys(("-0", "-0.0"), -0.0),
}
_SPECIAL = frozenset("+-.0123456789tTfFnN~")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_POINT = re.compile(r"\.[0-9](?:_?[0-9])*(?:[eE][-+]?[0-9](?:_?[0-9])*)?\Z")
_DATE = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:(?:[Tt](\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.,](\d+))?(Z|[+-]\d\d:\d\d))"
    r"|(?: (\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.,](\d+))?))?\Z"
)
_CORE = "tag:yaml.org,2002:"
_MERGE = _CORE + "merge"  # what programs that write YAML put before <<
_DROP = object()


class Document:
    """One YAML document: its tree, and the paths its tags remove from earlier files."""

    __slots__ = ("cuts", "tree")

    def __init__(self, tree: Any, cuts: list[tuple[str, ...]]) -> None:
        self.tree = tree
        self.cuts = cuts


class _Node:
    __slots__ = ("column", "kind", "line", "open", "plain", "tag", "value")

    def __init__(self, kind: str, value: Any, tag: str | None, plain: bool, mark: Any) -> None:  # noqa: FBT001 - as YAML says it
        self.kind = kind  # scalar, map, seq, alias
        self.value = value
        self.tag = tag
        self.plain = plain
        self.line = mark.line + 1
        self.column = mark.column + 1
        self.open = False  # being expanded now: meeting it again is a self-reference


def _written(node: _Node) -> _Node:
    """Return where a value is to be repaired: an alias's scalar stands at its anchor."""
    target: Any = node.value
    return target if node.kind == "alias" and target.kind == "scalar" else node


class _Refused(Exception):
    """Reading this document cannot go on; the problem is already reported."""


def parse(text: bytes | str, file: str, findings: Findings) -> list[Document]:
    """Return the documents of one file; problems go to ``findings``."""
    import yaml  # noqa: PLC0415 - the CLI imports this module long before it needs YAML
    from yaml._yaml import CParser  # noqa: PLC0415 - yaml.cyaml only re-exports it

    documents: list[Document] = []
    try:
        parser = CParser(text)
        events = _Events(parser, yaml, file, findings)
        for root in events.documents():
            builder = _Builder(file, findings)
            documents.append(Document(builder.build(root), builder.cuts))
    except _Refused:
        pass
    except yaml.MarkedYAMLError as error:
        _syntax_error(error, text, file, findings)
    except (yaml.YAMLError, UnicodeError) as error:
        findings.error(
            f"the file is not readable text: {getattr(error, 'reason', error)}",
            code="yaml",
            position=_position_of(text, getattr(error, "position", 0), file),
            hint="save it as UTF-8, without control characters",
        )
    return documents


def _position_of(text: bytes | str, offset: int | None, file: str) -> Position:
    before = text[: offset or 0]
    newline: Any = b"\n" if isinstance(text, bytes) else "\n"
    return Position(file, before.count(newline) + 1, len(before) - before.rfind(newline))


def _syntax_error(error: Any, text: bytes | str, file: str, findings: Findings) -> None:
    mark = error.problem_mark or error.context_mark
    message = error.problem or str(error)
    context = f" ({error.context})" if error.context and error.context != message else ""
    hint = ""
    if error.context_mark and "quoted scalar" in (error.context or ""):
        mark, hint = error.context_mark, "close the quote that opens here"
    elif "\\t" in message or "tab" in message:
        hint = "indent with spaces: YAML does not allow tabs"
    elif "mapping values are not allowed" in message:
        hint = "put quotes around a value that contains ': ', or check the indentation"
    elif "did not find expected key" in message or "expected <block end>" in message:
        hint = "check the indentation of this line against the lines above"
    elif "did not find expected ',' or" in message:
        hint = "close the bracket or brace that is open here"
    elif "cannot start any token" in message and mark:
        hint = _token_hint(text, mark.index)
    findings.error(
        f"not valid YAML: {message}{context}",
        code="yaml",
        position=Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1),
        hint=hint,
    )


def _token_hint(text: bytes | str, index: int) -> str:
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    rest = shown.removeprefix("\ufeff")[index:]
    if rest.startswith("\t"):
        return "indent with spaces: YAML does not allow tabs"
    return f"put quotes around it: a value cannot begin with {rest[:1]}"


class _Events:
    """The parser's events as trees of nodes, one per document."""

    def __init__(self, parser: Any, yaml: Any, file: str, findings: Findings) -> None:
        self._next = parser.get_event
        self._yaml = yaml
        self._file = file
        self._findings = findings
        self._anchors: dict[str, _Node] = {}

    def documents(self) -> Any:
        yaml = self._yaml
        while True:
            event = self._next()
            if event is None or isinstance(event, yaml.StreamEndEvent):
                return
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                yield self._node(self._next(), 0)

    def _node(self, event: Any, depth: int) -> _Node:
        yaml = self._yaml
        kind = type(event)
        if kind is yaml.ScalarEvent:
            node = _Node("scalar", event.value, event.tag, event.implicit[0], event.start_mark)
            if event.anchor:
                self._anchors[event.anchor] = node
            return node
        if kind is yaml.AliasEvent:
            target = self._anchors.get(event.anchor)
            if target is None:
                self._refuse(
                    event.start_mark,
                    f"the alias *{event.anchor} has no anchor &{event.anchor} before it",
                    "check the spelling; an anchor must stand above its aliases in the same file",
                )
            return _Node("alias", target, None, plain=False, mark=event.start_mark)
        if depth >= MAX_DEPTH:
            self._refuse(event.start_mark, f"values are nested more than {MAX_DEPTH} deep")
        items: list[Any] = []
        if kind is yaml.MappingStartEvent:
            node = _Node("map", items, event.tag, plain=False, mark=event.start_mark)
            end: Any = yaml.MappingEndEvent
        else:
            node = _Node("seq", items, event.tag, plain=False, mark=event.start_mark)
            end = yaml.SequenceEndEvent
        if event.anchor:
            self._anchors[event.anchor] = node
        following = self._next()
        while type(following) is not end:
            items.append(self._node(following, depth + 1))
            following = self._next()
        return node

    def _refuse(self, mark: Any, message: str, hint: str = "use fewer levels") -> None:
        self._findings.error(
            message,
            code="yaml",
            position=Position(self._file, mark.line + 1, mark.column + 1),
            hint=hint,
        )
        raise _Refused


class _Builder:
    """Nodes -> Map and Seq: scalars resolved, aliases expanded, merge keys applied."""

    def __init__(self, file: str, findings: Findings) -> None:
        self._file = file
        self._findings = findings
        self._visited = 0
        self._aliased = 0
        self._depth = 0
        self.cuts: list[tuple[str, ...]] = []

    def build(self, root: _Node) -> Any:
        value = self._value(root, (), in_alias=False)
        return None if value is _DROP else value

    def _value(self, node: _Node, path: tuple[str, ...], *, in_alias: bool) -> Any:
        self._visited += 1
        if in_alias:
            self._aliased += 1
        if self._visited > 1000:
            self._within_budget(node)
        if node.kind == "alias":
            target: _Node = node.value
            if target.open:
                self._refuse(node, "an anchor contains an alias of itself")
            return self._value(target, path, in_alias=True)
        if node.tag is not None:
            if node.tag == "!reset":
                self.cuts.append(path)
                return _DROP
            if node.tag == "!override":
                self.cuts.append(path)
        if node.kind == "scalar":
            return self._scalar(node)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(node, f"values are nested more than {MAX_DEPTH} deep")
        node.open = True
        try:
            if node.kind == "seq":
                return self._sequence(node, path, in_alias=in_alias)
            return self._mapping(node, path, in_alias=in_alias)
        finally:
            node.open = False
            self._depth -= 1

    def _within_budget(self, node: _Node) -> None:
        if self._visited - self._aliased > MAX_NODES:
            self._refuse(node, f"the document has more than {MAX_NODES} values")
        if self._visited > MAX_EXPANDED or (
            self._aliased > 100 and self._aliased > 0.99 * self._visited
        ):
            self._refuse(node, "the file grows too large through its aliases (excessive aliasing)")

    def _sequence(self, node: _Node, path: tuple[str, ...], *, in_alias: bool) -> Seq:
        made = Seq()
        for index, item in enumerate(node.value):
            value = self._value(item, (*path, str(index)), in_alias=in_alias)
            if value is not _DROP:
                at = _written(item)
                made.add(value, SourceMark(self._file, at.line, at.column))
        return made

    def _mapping(self, node: _Node, path: tuple[str, ...], *, in_alias: bool) -> Map:
        made = Map()
        seen: dict[str, _Node] = {}
        merges: list[_Node] = []
        pairs = iter(node.value)
        for key_node, value_node in zip(pairs, pairs, strict=True):
            key = self._key(key_node, path, seen)
            if key is None:
                continue
            if key == "<<" and (key_node.plain or key_node.tag == _MERGE):
                merges.append(value_node)
                continue
            value = self._value(value_node, (*path, key), in_alias=in_alias)
            if value is not _DROP:
                at = key_node if value_node.kind in ("map", "seq") else _written(value_node)
                mark = SourceMark(self._file, at.line, at.column, key_node.line, key_node.column)
                made.put(key, value, mark)
        for value_node in merges:
            self._merge(made, value_node, path, in_alias=in_alias, listed=False)
        return made

    def _key(self, node: _Node, path: tuple[str, ...], seen: dict[str, _Node]) -> str | None:
        real: _Node = node.value if node.kind == "alias" else node
        dotted = ".".join(path)
        text = real.value if real.kind == "scalar" else None
        if not isinstance(text, str):
            self._bad_key(node, dotted, "a list or mapping")
            return None
        first = seen.get(text)
        if first is not None:
            self._findings.error(
                f"the key {text!r} is already used at line {first.line}",
                code="duplicate-key",
                path=f"{dotted}.{text}" if dotted else text,
                position=Position(self._file, node.line, node.column),
                hint="remove one of them, or merge their values",
            )
            return None
        seen[text] = node
        if (real.plain or real.tag) and text != "<<":
            value = self._scalar(real)
            if not isinstance(value, str) or isinstance(value, Timestamp):
                self._bad_key(node, dotted, repr(text))
                return None
            return value
        return text

    def _bad_key(self, node: _Node, dotted: str, what: str) -> None:
        where = f"in {dotted}" if dotted else "at top level"
        self._findings.error(
            f"the key {what} {where} is not a string",
            code="non-string-key",
            path=dotted,
            position=Position(self._file, node.line, node.column),
            hint="put quotes around it",
        )

    def _merge(
        self, into: Map, node: _Node, path: tuple[str, ...], *, in_alias: bool, listed: bool
    ) -> None:
        real: _Node = node.value if node.kind == "alias" else node
        if real.kind == "seq" and not listed:
            if real.open:
                self._refuse(node, "an anchor contains an alias of itself")
            for item in real.value:
                self._merge(
                    into, item, path, in_alias=in_alias or node.kind == "alias", listed=True
                )
            return
        value = self._value(node, path, in_alias=in_alias)
        if value is _DROP:
            return
        if not isinstance(value, Map):
            self._findings.error(
                "'<<' wants a mapping, an alias of one, or a list of those",
                code="yaml",
                path=".".join(path),
                position=Position(self._file, node.line, node.column),
                hint="write <<: *name, with the anchor &name at a mapping",
            )
            return
        for key, item in value.items():
            if key not in into:
                into.put(key, item, value.marks.get(key))

    def _scalar(self, node: _Node) -> Any:
        tag = node.tag
        if tag is None or tag == "!":
            value = resolve(node.value) if node.plain and tag is None else node.value
            if isinstance(value, float) and not -1e999 < value < 1e999:
                self._refuse(
                    node,
                    f"{node.value} (infinity or not a number) cannot be used",
                    "write a plain number, or quotes around a text",
                )
            return value
        if not tag.startswith(_CORE):
            return node.value
        return self._tagged(node, tag.removeprefix(_CORE))

    def _tagged(self, node: _Node, tag: str) -> Any:
        text = node.value
        value = resolve(text)
        if tag == "str":
            return text
        if tag == "binary":
            import base64  # noqa: PLC0415 - almost no file needs it

            try:
                return base64.b64decode(
                    text.replace("\n", "").replace(" ", ""), validate=True
                ).decode("utf-8", "replace")
            except ValueError:
                self._refuse(node, "!!binary wants base64 text", "write the plain text")
        if tag == "float" and type(value) is int:
            return float(value)
        fits = {
            "int": type(value) is int,
            "float": isinstance(value, float),
            "bool": isinstance(value, bool),
            "null": value is None,
            "timestamp": isinstance(value, Timestamp),
        }
        if not fits.get(tag, True):
            self._refuse(node, f"{text!r} is not a value of type !!{tag}", f"leave !!{tag} out")
        return value if tag in fits else text

    def _refuse(
        self,
        node: _Node,
        message: str,
        hint: str = "use fewer aliases, or write the repeated parts out",
    ) -> None:
        self._findings.error(
            message, code="yaml", position=Position(self._file, node.line, node.column), hint=hint
        )
        raise _Refused


def resolve(text: str) -> Any:
    """Return the value of an unquoted scalar, as the head of this module says."""
    if text and text[0] not in _SPECIAL:
        return text
    if text in _WORDS:
        return _WORDS[text]
    return text if text[0] in "tTfFnN~" else _number_or_date(text)


def _number_or_date(text: str) -> Any:
    if text[0] == ".":
        return _number(text, text) if _POINT.match(text) else text
    moment = _timestamp(text) if len(text) > 7 and text[4] == "-" else None
    if moment is not None:
        return moment
    stripped = text.replace("_", "")
    if _INTEGER.match(stripped):
        value = _integer(stripped)
        if -(1 << 63) <= value < (1 << 64):
            return value
    if _FLOAT.match(stripped):
        return _number(stripped, text)
    return text


def _number(text: str, fallback: str) -> Any:
    value = float(text)
    return fallback if value in (float("inf"), float("-inf")) else value


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        value = int(digits, 8)
    elif len(digits) > 400:
        return 1 << 64  # never fits; int() of very long text is slow and limited
    else:
        value = int(digits, 0)
    return -value if text[0] == "-" else value


def _timestamp(text: str) -> Timestamp | None:
    found = _DATE.match(text)
    if found is None or not text.isascii():
        return None
    year, month, day, h1, m1, s1, f1, zone, h2, m2, s2, f2 = found.groups()
    hour, minute, second = int(h1 or h2 or 0), int(m1 or m2 or 0), int(s1 or s2 or 0)
    try:
        moment = datetime(int(year), int(month), int(day), hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    fraction = (f1 or f2 or "")[:9].rstrip("0")
    fraction = f".{fraction}" if fraction else ""
    stamp = moment.strftime("%H:%M:%S") + fraction
    date = f"{int(year):04d}-{int(month):02d}-{int(day):02d}"
    if zone in (None, "Z"):
        return Timestamp.of(f"{date}T{stamp}Z", f"{date} {stamp} +0000 UTC")
    offset = zone.replace(":", "")
    return Timestamp.of(f"{date}T{stamp}{zone}", f"{date} {stamp} {offset} {offset}")
