"""Write down what the present version of the wire says: ``python tests/specs/goldens/make.py``.

Made anew until the version is released, and never after: it is what the next one must read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from specs.wire import PROTOCOL  # noqa: E402 - the path comes first
from tests.specs.test_skew import models, samples  # noqa: E402 - as above


def main() -> None:
    said: dict[str, list[object]] = {}
    for model in samples():
        said.setdefault(type(model).__name__, []).append(json.loads(model.encode()))
    fields = {name: sorted(kind.model_fields) for name, kind in sorted(models().items())}
    found = {"version": PROTOCOL, "messages": said, "journal": [], "fields": fields}
    text = json.dumps(found, indent=1, sort_keys=True)
    (HERE / f"wire-{PROTOCOL}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
