"""Protected sums inside other people's Flower apps: two lines, one in the ClientApp and one around the strategy.

``flwr`` is needed (``pip install 'codream-secure[flower]'``), torch is not. To read it: :mod:`~.settings` (what both
sides agree on), :mod:`~.privacy` (noise, and the account of it), :mod:`~.members` (who a node is), :mod:`~.mod` (the
client), :mod:`~.strategy` and :mod:`~.grid` (the server), :mod:`~.rounds` (one round's messages), :mod:`~.store` (what
a client keeps between messages). ``docs/flower.md`` says what it protects.
"""

from codream_secure.flower.grid import ProtectedGrid, SumLostError
from codream_secure.flower.members import Member, from_node_config
from codream_secure.flower.mod import protected_mod
from codream_secure.flower.privacy import ClientLevel
from codream_secure.flower.settings import Protection
from codream_secure.flower.strategy import Protected

__all__ = [
    "ClientLevel",
    "Member",
    "Protected",
    "ProtectedGrid",
    "Protection",
    "SumLostError",
    "from_node_config",
    "protected_mod",
]
