"""Keep the figures in docs/benchmarks.md: between markers, so that the words around them stay."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "benchmarks.md"


def write(
    line: str, texts: dict[str, tuple[str, str]], raw: dict[str, Any], *, file: Path = PAGE
) -> None:
    """Replace each measured subject's section; a subject not measured now keeps its old one."""
    page = file.read_text() if file.exists() else "# Benchmarks\n"
    day = dt.datetime.now(tz=dt.UTC).date()
    for name, (title, text) in texts.items():
        loads = raw[name].get("load")
        when = f"{day}; {line}"
        if loads:
            when += f"; load {loads[0]:.1f} before, {loads[1]:.1f} after"
        shown = text if text.startswith("|") else f"```text\n{text}\n```"
        body = f"## {title}\n\n{when}\n\n{shown}"
        page = replace(page, name, body)
    file.write_text(page)


def replace(page: str, name: str, body: str) -> str:
    """Put ``body`` between the markers of ``name``; append them where there are none."""
    begin, end = f"<!-- figures: {name} -->", f"<!-- end: {name} -->"
    block = f"{begin}\n{body}\n{end}"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{block}\n"
