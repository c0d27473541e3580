"""The command line, ``codream-secure``."""

from codream_secure.cli.app import main

__all__ = ["main"]
