"""Inputs nobody would write: mutated corpus files, and files grown from the schema's own data."""

import json
import re

from specs.compose.language.schema import PROJECT
from tests.specs.corpus_files import ROOT

TOKENS = (
    *(
        "$",
        "${",
        "}",
        "${A:-",
        "$$",
        ":",
        "- ",
        "\t",
        "\n",
        "'",
        '"',
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
    ),
    *("<<: ", "!reset ", "!override ", "null", "~", "0x1f", "1e309", "-1", "9" * 30, "yes", "true"),
    *("---\n", "...\n", "\x00", "\ufeff", "é", "\u2028", "|\n", ">-\n", "%", "@", "`", "x-", "#"),
    *("services:\n", "  web:\n", "2024-01-01", ".inf", ".nan", "!!binary ", "!!python/object "),
)
WORDS = (
    *(
        "",
        "a",
        "web",
        "80",
        "80:80",
        "1.5",
        "1m30s",
        "64m",
        "-1",
        "0",
        "true",
        "CMD",
        "./x",
        "/x:/y",
    ),
    *("a:b:c:d", "service:web", "${A}", "${A:?no}", "${", "$$", "host", "0440", "é", "x" * 300),
    *("127.0.0.1:1-3:4-6/udp", "[::1]:80:80", "A=b", "=", "A", "all", "a b", "9" * 25, "1e400"),
)


NUMBERS = (0, -1, 65536, 2**31, 2**63, 10**30, 0.5, 1e300)


def seeds():
    """Return the texts of all Compose files of the corpora, those of the stacks more often."""
    stacks = sorted((ROOT / "stacks").rglob("*.yaml"))
    return [path.read_bytes() for path in (*stacks * 4, *sorted((ROOT / "broken").glob("*.yaml")))]


def mutated(rng, texts):
    """Return one file with a few changes of the kinds editors, tools and cats make."""
    text = rng.choice(texts)[:6000].decode("utf-8", "replace")
    for _ in range(rng.randrange(1, 4)):
        text = rng.choice((_bytes, _values, _values, _lines, _lines))(rng, text, texts)
    return text.encode("utf-8", "surrogatepass")


def _bytes(rng, text, texts):
    at = rng.randrange(len(text) + 1)
    end = min(len(text), at + rng.randrange(1, 30))
    other = rng.choice(texts).decode("utf-8", "replace")
    start = rng.randrange(len(other))
    middle = rng.choice(
        (
            "",
            text[at:end] * 2,
            rng.choice(TOKENS),
            rng.choice(TOKENS) + text[at:end],
            other[start : start + rng.randrange(1, 200)],
            "".join(chr(rng.randrange(1, 0x250)) for _ in range(end - at)),
        )
    )
    return text[:at] + middle + text[end:]


def _values(rng, text, texts):
    """Put another value behind one of the colons or dashes."""
    places = [found.end() for found in re.finditer(r"[:\-,\[] ", text)]
    if not places:
        return text
    at = rng.choice(places)
    end = at + len(re.match(r"[^\n,\]}]*", text[at:])[0])
    word = rng.choice((*WORDS, *TOKENS[-9:]))
    return text[:at] + rng.choice((word, json.dumps(word))) + text[end:]


def _lines(rng, text, texts):
    """Remove, repeat, move, shift or borrow a line."""
    lines = text.splitlines(keepends=True) or ["\n"]
    other = rng.choice(texts).decode("utf-8", "replace").splitlines(keepends=True)
    at = rng.randrange(len(lines))
    line = lines.pop(at)
    kept = rng.choice(([], [line, line], [f"  {line}"], [line[2:]], [rng.choice(other)], [line]))
    lines[at:at] = kept
    if len(kept) == 1 and rng.random() < 0.3:
        lines.insert(rng.randrange(len(lines) + 1), line)
    return "".join(lines)


def grown(rng):
    """Return a project grown from the schema: mostly of the right types, never of much sense."""
    return json.dumps(_value(rng, PROJECT, 0)).encode()


def _value(rng, shape, depth):  # noqa: PLR0911 - one line a type
    kind = (
        rng.choice(shape.types) if rng.random() > 0.004 else rng.choice(("null", "array", "object"))
    )
    if kind == "object" and depth < 9:
        return _object(rng, shape, depth)
    if kind == "array":
        items = shape.items
        count = rng.randrange(3) if depth < 9 else 0
        return [] if items is None else [_value(rng, items, depth + 1) for _ in range(count)]
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("integer", "number"):
        return rng.choice((1, 80, 3, 7) if rng.random() < 0.9 else NUMBERS)
    if kind == "null":
        return None
    if shape.enum and rng.random() < 0.9:
        return rng.choice(shape.enum)
    return _word(rng, shape)


def _word(rng, shape):
    good = {"duration": "1m30s", "bytes": "64m", "bool": "true", "int": "3", "uint": "4"}
    if shape.bind in good and rng.random() < 0.9:
        return good[shape.bind]
    return rng.choice(WORDS if rng.random() < 0.1 else ("a", "web", "db", "80", "/x", "./x:/y"))


def _object(rng, shape, depth):
    made = {}
    fields = shape.fields or {}
    for key, field in fields.items():
        wanted = 0.4 if depth == 0 else 2 / max(len(fields), 3)
        if key in shape.required or rng.random() < wanted:
            made[key] = _value(rng, field, depth + 1)
    if shape.values is not None:
        names = ("web", "db", "nofile") if rng.random() < 0.9 else ("a.b", "x-y", "my name", "é")
        for name in rng.sample(names, 2):
            made[name] = _value(rng, shape.values, depth + 1)
    if depth == 2 and "image" in fields and rng.random() < 0.9:
        made["image"] = "x:1"
    if rng.random() < 0.01:
        made[rng.choice(("x-own", "x-corral", "unknown", ""))] = rng.choice(
            (1, None, {}, {"a": []})
        )
    return made
