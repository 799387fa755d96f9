#!/usr/bin/env python3
"""A way from lab hosts to the Debian mirror, for builds that install packages.

``scripts/lab_mirror.py LAB HOST ...`` listens at 127.0.0.1:3142 of these hosts until it is ended,
as an HTTP proxy that fetches from this machine: what the hosts' networks are does not change.
Builds use it where the node's agent was started with ``http_proxy=http://127.0.0.1:3142``.
It answers plain GET only, which is what apt asks of a mirror; everything else is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import shutil
import signal
import socket
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.lab.host import LabHost

PORT = 3142
URL = f"http://127.0.0.1:{PORT}"
ASKED = ("Range", "If-Range", "If-Modified-Since", "Cache-Control", "User-Agent", "Accept")
HOP = ("connection", "keep-alive", "transfer-encoding", "proxy-connection")
SECONDS = 60.0
REDIRECTED = (301, 302, 303, 307, 308)


class Handler(BaseHTTPRequestHandler):
    """Fetches what it is asked for by its whole address."""

    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def do_GET(self) -> None:
        """Answer from the mirror."""
        with contextlib.ExitStack() as closing:
            try:
                answer = self._fetch(self.path, closing)
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.send_error(502, f"{type(error).__name__}: {error}")
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.close_connection = True
                self.send_header("Connection", "close")
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile)

    def _fetch(self, address: str, closing: contextlib.ExitStack) -> http.client.HTTPResponse:
        for _ in range(4):
            url = urllib.parse.urlsplit(address)
            if url.scheme != "http" or not url.hostname:
                raise ValueError(f"only http://HOST/... is fetched, not {address!r}")
            link = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=SECONDS)
            closing.callback(link.close)
            headers = {name: self.headers[name] for name in ASKED if name in self.headers}
            link.request("GET", url._replace(scheme="", netloc="").geturl() or "/", headers=headers)
            answer = closing.enter_context(link.getresponse())
            if answer.status not in REDIRECTED:
                return answer
            address = urllib.parse.urljoin(address, answer.getheader("Location") or "")
        raise ValueError("too many redirections")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Say nothing: apt does."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a build that was ended while it fetched."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def reachable(hosts: Sequence[LabHost]) -> Iterator[None]:
    """Listen in every host's network meanwhile."""
    servers = []
    try:
        for host in hosts:
            server = _Server(("127.0.0.1", PORT), Handler, bind_and_activate=False)
            server.socket.close()
            with host.network():
                server.socket = socket.socket()
            servers.append(server)
            server.allow_reuse_address = True
            server.server_bind()
            server.server_activate()
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lab")
    parser.add_argument("hosts", nargs="+")
    arguments = parser.parse_args()
    lab = Lab.open(arguments.lab)
    with reachable([lab.host(name) for name in arguments.hosts]):
        print(f"{URL} on {', '.join(arguments.hosts)}; Ctrl-C ends it", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
