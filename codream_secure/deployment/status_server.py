"""``/metrics`` and ``/healthz`` over HTTP, beside the streams: to be read, never to steer.

Neither encrypted nor guarded, so on loopback unless told otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from codream_secure.deployment.metrics import Metrics
from codream_secure.errors import ConfigError

_LOG = logging.getLogger(__name__)
_LOOPBACK = "127.0.0.1"
_REQUEST_S = 5.0
_AT_A_TIME = 8
_PLAIN = "text/plain; charset=utf-8"


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, or ``PORT`` alone for loopback; an IPv6 address stands in brackets.

    Raises:
        ConfigError: it is neither.

    >>> parse_address("9100"), parse_address(":0"), parse_address("[::1]:9100")
    (('127.0.0.1', 9100), ('127.0.0.1', 0), ('::1', 9100))
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 1 << 16):
        raise ConfigError(f"metrics is {text!r}: give HOST:PORT, or a PORT from 0 to 65535 for {_LOOPBACK}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(f"metrics is {text!r}: an IPv6 address stands in brackets, as in [::1]:9100")
    return host.strip("[]") or _LOOPBACK, int(port)


class StatusServer:
    """Answers from threads of its own.

    Args:
        address: ``HOST:PORT`` or ``PORT``; port 0 takes a free one.
        metrics: what is told.

    Attributes:
        address: ``HOST:PORT`` where it listens.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, address: str, metrics: Metrics) -> None:
        host, port = parse_address(address)
        try:
            self._server = _Server(host, port, metrics)
        except OSError as error:
            raise ConfigError(f"metrics is {address!r}, which cannot be listened on: {error.strerror}") from None
        bracketed = f"[{host}]" if ":" in host else host
        self.address = f"{bracketed}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.metrics = metrics
        self._free = threading.BoundedSemaphore(_AT_A_TIME)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Whoever comes when too many are here is hung up on: a thread each would be a way to take all memory."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up in the middle, or worse; never a traceback among the lines of the log."""
        _LOG.warning("a request for metrics failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, *self.server.metrics.text())
        elif path == "/healthz":
            if self.server.metrics.ready:
                self._answer(HTTPStatus.OK, b"serving\n", _PLAIN)
            else:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"no round could be opened yet\n", _PLAIN)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there are /metrics and /healthz\n", _PLAIN)

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def version_string(self) -> str:
        return "codream-secure"

    def log_message(self, format: str, *args: Any) -> None:
        _LOG.debug("status: %s", format % args)
