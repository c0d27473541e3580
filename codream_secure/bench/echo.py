"""The least that a step over streams can cost: the same bytes down and up over bare gRPC with the same TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from codream_secure.deployment.streams.library import load_grpc
from codream_secure.deployment.streams.loops import LoopThread
from codream_secure.deployment.streams.tls import Tls

_SERVICE, _METHOD = "codream_secure.Echo", "Open"
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class EchoServer:
    """Sends every client the same bytes and waits for all to send them back.

    Args:
        tls: as for an aggregator.
        clients: how many there will be.
    """

    def __init__(self, tls: Tls, clients: int) -> None:
        self._tls = tls
        self._clients = clients
        self._streams: list[Any] = []
        self._loop = LoopThread()
        self.port = self._loop.call(self._start())

    async def _start(self) -> int:
        grpc = load_grpc()
        self._end = asyncio.Event()
        self._server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
        credentials = grpc.ssl_server_credentials(
            [(self._tls.private_key, self._tls.certificate)],
            root_certificates=self._tls.authority,
            require_client_auth=True,
        )
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()
        return int(port)

    async def _serve(self, _: object, context: Any) -> None:
        await context.read()
        self._streams.append(context)
        await self._end.wait()

    def step(self, *contents: bytes) -> None:
        """One exchange of each content with every client, one after the other; each waits until all have come."""
        self._loop.call(self._step(contents))

    async def _step(self, contents: Sequence[bytes]) -> None:
        while len(self._streams) < self._clients:
            await asyncio.sleep(0.01)
        for content in contents:
            await asyncio.gather(*(self._exchange(stream, content) for stream in self._streams))

    @staticmethod
    async def _exchange(stream: Any, content: bytes) -> None:
        await stream.write(content)
        answer = await stream.read()
        if len(answer) != len(content):
            raise ConnectionError(f"{len(content)} bytes came back as {len(answer)}")

    def close(self) -> None:
        """Hang up."""

        async def stop() -> None:
            self._end.set()
            await self._server.stop(grace=1.0)

        self._loop.call(stop())
        self._loop.close()


async def echo(port: int, tls: Tls) -> None:
    """Send back whatever comes, until the server hangs up."""
    grpc = load_grpc()
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.authority, private_key=tls.private_key, certificate_chain=tls.certificate
    )
    options = [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        call = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")()
        await call.write(b"\0")
        while (content := await call.read()) is not grpc.aio.EOF:
            await call.write(content)
