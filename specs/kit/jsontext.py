r"""JSON as it is printed: what a terminal would obey stands there by its number.

JSON asks that only of U+0000 to U+001F. But DEL and the C1 controls (U+009B begins a command, as
ESC [ does), line and paragraph separators and what turns the direction of text are values like
any other in a file or a container's output, and a terminal takes them for itself; halves of
surrogate pairs cannot be printed at all. ``\u009b`` is the same value to whoever reads JSON.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(value: Any, **options: Any) -> str:
    """Return JSON in Unicode; ``options`` are those of json.dumps."""
    text = json.dumps(value, ensure_ascii=False, **options)
    if text.isascii() and "\x7f" not in text:
        return text
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
