"""``user@host[:port]`` as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import Invalid
from orchestrator.transport.address import SshAddress, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("root@n2", SshAddress("root", "n2", 22)),
        ("n2", SshAddress("root", "n2", 22)),
        ("ops@db-1.example.net:2222", SshAddress("ops", "db-1.example.net", 2222)),
        ("ssh://ops@10.0.0.7", SshAddress("ops", "10.0.0.7", 22)),
        ("root@[fd00::7]:2200", SshAddress("root", "fd00::7", 2200)),
        ("root@[fd00::7]", SshAddress("root", "fd00::7", 22)),
        ("root@fd00::7", SshAddress("root", "fd00::7", 22)),
        ("  root@n2 ", SshAddress("root", "n2", 22)),
    ],
)
def test_it_is_read(text, expected):
    assert parse(text) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "root@", "@n2", "root@n2:", "root@n2:0", "root@n2:65536", "root@n2:x", "root@[fd00::7]x",
     "-oProxyCommand=id@n2", "root@-oProxyCommand", "ro ot@n2", "root@n2\n", "root@n2;id",
     "root@n2:²", "root@n2/path", "root@.n2"],
)  # fmt: skip
def test_nonsense_is_refused_with_a_hint(text):
    if text == "root@n2\n":  # white space around is forgiven
        assert parse(text) == SshAddress("root", "n2")
        return
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert "user@host" in caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_reads_back(text):
    try:
        found = parse(text)
    except Invalid:
        return
    assert parse(str(found)) == found
