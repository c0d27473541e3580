"""CoDream over single messages: the same bits as in one process, by clients that live for one message at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from codream_secure.deployment.messages.packets import unpack
from codream_secure.deployment.streams import Limits
from codream_secure.deployment.streams.calls import Ask
from codream_secure.dreaming.synthesis import Schedule


def check_equal(cohort: Any, equal: Callable[[Any, Any], bool]) -> None:
    """All parties have ended with what the same training ends with in one process."""
    expected, last = cohort.in_one_process(), cohort.training.config.run.rounds
    for number in range(len(cohort.identities)):
        found = cohort.state(f"client{number}", last)
        assert equal(found["clients"], [expected["clients"][number]]), f"weights of client {number}"
        assert equal(found["buffer"], expected["buffer"]), f"the buffer of client {number}"
        assert equal(found["dreams"], expected["dreams"]), f"the dreams of client {number}"
    server = cohort.state("server", last)
    assert server["clients"] == []
    assert equal({**server, "clients": expected["clients"]}, expected)


def test_messages_end_with_the_bits_of_one_process(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, update = Counter[str](), Schedule.client_update

    def counted(self: Schedule, *arguments: Any) -> torch.Tensor:
        computed["updates"] += 1
        return update(self, *arguments)

    monkeypatch.setattr(Schedule, "client_update", counted)
    cohort = make_cohort()
    rows = cohort.serve()
    assert [row["contributors"] for row in rows] == [[0, 1, 2]] * 2
    assert ["test_accuracy" in row for row in rows] == [False, True]
    # Started anew for every message, a client computes each of its updates once all the same: 2 rounds of 3 steps.
    assert computed["updates"] == 3 * 2 * 3
    check_equal(cohort, equal)
    calls = [unpack(packet, limits=Limits()).calls for member, packet in cohort.sent if member == 0]
    sums = sum(isinstance(call, Ask) for packet in calls for call, _ in packet)
    # Updates, labels half-way, in the end and of CutMix copies (old dreams' anew in round 2), and one accuracy.
    assert sums == (3 + 3) + (3 + 4) + 1
    # Two messages for each sum; two to set a round up, and one to end it.
    assert len(calls) == 2 * sums + 2 * 3
    assert cohort.learners[0] == sums + 1, "only what needs a vector, or finishes an unmeasured round, needs the method"
    consents = sorted((cohort.folder / "client0" / "consents").rglob("*"))
    assert {path.read_text() for path in consents if path.is_file()} == {"0 1 2"}


@pytest.mark.slow
def test_in_clear_too_and_with_labels_as_logits(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool]
) -> None:
    cohort = make_cohort(
        protocol={"protection": "plain"},
        dreaming={"labels": "logits", "label_midway": False},
        distillation={"relabel": False},
    )
    cohort.serve()
    check_equal(cohort, equal)
