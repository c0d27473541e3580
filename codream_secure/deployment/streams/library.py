"""gRPC, which is optional: only this sub-package needs it."""

from __future__ import annotations

import importlib
from typing import Any

from codream_secure.errors import ConfigError

SERVICE = "codream_secure.Streams"
METHOD = "Open"


def load_grpc() -> Any:
    """The ``grpc`` module, with its asyncio half.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        importlib.import_module("grpc.aio")
        return importlib.import_module("grpc")
    except ImportError as error:
        raise ConfigError(
            f"streams between machines need grpcio, which cannot be imported ({error}): "
            "pip install 'codream-secure[flower]'"
        ) from None
