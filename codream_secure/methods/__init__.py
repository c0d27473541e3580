"""CoDream and the baselines it is judged against, behind one interface."""

from codream_secure.methods.base import Method
from codream_secure.methods.registry import METHODS, find_method

__all__ = ["METHODS", "Method", "find_method"]
