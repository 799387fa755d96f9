"""What skopeo says becomes Refusal or Later, in the registry's words; TLS only where safe."""

from __future__ import annotations

import pytest

from agent.errors import Later, NoRoom, Refusal
from agent.images.pull import failure, insecure, said

FATAL = 'time="2026-01-01T00:00:00Z" level=fatal msg="{}"'


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("reading manifest latest in x/y: manifest unknown: manifest unknown", Refusal),
        ("reading manifest v9 in docker.io/library/nginx: name unknown", Refusal),
        ("requested access to the resource is denied", Refusal),
        ("reading manifest: unauthorized: authentication required", Refusal),
        ("unable to retrieve auth token: invalid username/password: unauthorized", Refusal),
        ("x509: certificate signed by unknown authority", Refusal),
        ("http: server gave HTTP response to HTTPS client", Refusal),
        ("received unexpected HTTP status: 500 Internal Server Error", Later),
        ("received unexpected HTTP status: 502 Bad Gateway", Later),
        ("toomanyrequests: You have reached your pull rate limit", Later),
        ("dial tcp 127.0.0.1:1: connect: connection refused", Later),
        ("dial tcp: lookup x on 10.0.0.1:53: no such host", Later),
        ("net/http: TLS handshake timeout", Later),
        ("read tcp: connection reset by peer", Later),
        ("unexpected EOF", Later),
        ("write /x: no space left on device", NoRoom),
        ("something nobody has seen before", Later),
    ],
)
def test_failures_are_told_apart(words, kind) -> None:
    error = failure("team/app:1", FATAL.format(words.replace('"', '\\"')))
    assert type(error) is kind
    assert "team/app:1" in str(error)
    if "no space" not in words:
        assert words in str(error)


def test_only_the_words_are_shown() -> None:
    noise = "\n".join(
        [
            'time="2026-01-01T00:00:00Z" level=warning msg="something else"',
            FATAL.format(
                'Error parsing image name \\"docker://localhost:5000/x\\": initializing source '
                "docker://localhost:5000/x: pinging container registry localhost:5000: Get "
                '\\"https://localhost:5000/v2/\\": dial tcp: connection refused'
            ),
        ]
    )
    assert said(noise) == 'Get "https://localhost:5000/v2/": dial tcp: connection refused'
    assert said("") == "no message"
    assert "\x1b" not in said("a\x1b]52;c;x\x07b")


def test_the_same_fault_has_the_same_words_at_each_try() -> None:
    asked = "lookup a.b on [::1]:53: read udp [::1]:{}->[::1]:53: read: connection refused"
    told = {said(FATAL.format(asked.format(port))) for port in (41196, 59796)}
    assert told == {"lookup a.b on [::1]:53: read [::1]:53: read: connection refused"}


@pytest.mark.parametrize(
    ("host", "named", "allowed"),
    [
        ("docker.io", "", False),
        ("localhost", "", True),
        ("localhost:5000", "", True),
        ("127.0.0.1:5000", "", True),
        ("127.8.8.8", "", True),
        ("[::1]:5000", "", True),
        ("10.0.0.1:5000", "", False),
        ("localhost.example.com", "", False),
        ("127.0.0.1.example.com", "", False),
        ("registry:5000", "registry:5000", True),
        ("registry:5000", "other, registry", True),
        ("registry:5001", "registry:5000", False),
    ],
)
def test_tls_may_be_off_only_on_loopback_or_by_name(host, named, allowed) -> None:
    assert insecure(host, {"CORRAL_INSECURE_REGISTRIES": named}) is allowed
