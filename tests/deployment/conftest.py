"""People with identities, and their public halves."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest

from codream_secure.deployment.public_half import PublicHalf, make_public_half
from protocols import Identity

DAY = datetime.date(2030, 1, 31)


@pytest.fixture
def introduce() -> Callable[..., PublicHalf]:
    """The public half of somebody new, or of an identity that is there."""

    def make(name: str, *, member: int | None = None, identity: Identity | None = None) -> PublicHalf:
        return make_public_half(identity or Identity.generate(), name, member=member, created=DAY)

    return make
