"""Parties that are no members, as numbers that no member has."""

from __future__ import annotations

SERVER = -1
"""Stands for the server where members are told apart by their numbers."""
AUTHORITY = -2
"""Likewise for the key authority, where a protocol has one."""
