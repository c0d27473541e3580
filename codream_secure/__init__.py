"""Privacy for collaborative learning in data space: CoDream, its baselines and the harness that judges them."""

from codream_secure.version import __version__

__all__ = ["__version__"]
