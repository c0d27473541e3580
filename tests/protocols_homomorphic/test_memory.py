"""A server's memory does not grow with its clients: contributions are added as they arrive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VALUES, CLIENTS = 786_432, 10
SCRIPT = r"""
import os, sys, numpy as np
from protocols import *
from protocols.homomorphic import server as _

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

name, values, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
protocol, members = make_protocol(name), range(clients)
identities = {member: Identity.generate() for member in (*members, *([AUTHORITY] if protocol.has_authority else []))}
keys = {party: identity.public_key for party, identity in identities.items()}
roster = Roster({member: keys[member] for member in members}, authority=keys.get(AUTHORITY))
terms = Terms(streams={"g": FixedPoint(clip=1.0, clients=clients)}, steps=4)
parties = {}
for party, identity in identities.items():
    credentials = Credentials(identity=identity, roster=roster, rounds=RoundLog())
    parties[party] = (
        protocol.authority(terms=terms, credentials=credentials)
        if party == AUTHORITY
        else protocol.client(party, terms=terms, credentials=credentials)
    )
server = protocol.server(members, terms=terms, round_id=os.urandom(16), roster=roster)
outbox = server.open()
while True:
    answers = {party: parties[party].receive(message) for party, message in outbox.items()}
    if server.phase is Phase.READY:
        break
    for party, answer in answers.items():
        if answer is not None:
            server.receive(party, answer)
    outbox = server.advance()

def step(length):
    # Clients live in processes of their own, so that what encryption takes is not this process's.
    readers = {}
    for member, request in server.request("g", length).items():
        readable, writable = os.pipe()
        if os.fork() == 0:
            parties[member].receive(request)
            with os.fdopen(writable, "wb") as file:
                file.write(parties[member].contribute(np.full(length, 0.5), stream="g"))
            os._exit(0)
        os.close(writable)
        with os.fdopen(readable, "rb") as file:
            server.receive(member, file.read())
        os.wait()
    return server.advance()

def give_up():
    if server.phase is Phase.OPEN:
        server.advance()

step(10)
give_up()
before = status("VmRSS:")
outbox = step(values)
plan = server._plans["g"]
vector = plan.chunks(values) * 2 * plan.parameters.degree * 8
print(status("VmHWM:") - before, vector, sum(map(len, {id(m): m for m in outbox.values()}.values())))
"""


@pytest.mark.parametrize(
    "name", ["bfv", pytest.param("ckks", marks=pytest.mark.slow), pytest.param("bfv-authority", marks=pytest.mark.slow)]
)
def test_a_server_holds_one_sum_however_many_contribute(name: str) -> None:
    """With ten clients it grows by less than three encrypted vectors as SEAL holds them, frames and bodies included."""
    command = [sys.executable, "-c", SCRIPT, name, str(VALUES), str(CLIENTS)]
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2]
    )
    grown, vector, _ = map(int, finished.stdout.split())
    assert grown < 3 * vector, f"{grown / vector:.2f} encrypted vectors"
