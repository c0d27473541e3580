"""What parties keep on disk, and the terms that it belongs to."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

from codream_secure.base_channel import BaseChannel, flattened
from codream_secure.deployment.accuracy import mean_accuracy
from codream_secure.deployment.client_data import load_client_data
from codream_secure.deployment.journal import Journal
from codream_secure.deployment.states import States
from codream_secure.deployment.training import TrainingTerms, load_training, make_training
from codream_secure.errors import CheckpointError, ConfigError, DataError, IdentityError
from protocols import Identity, Roster, SumResult, make_protocol

IMAGES = {"classes": 3, "channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.25]}


def terms(**sections: dict[str, Any]) -> TrainingTerms:
    return make_training({"data": {"clients": 3}, "images": IMAGES, **sections})


def test_equal_terms_have_equal_digests_and_others_have_others() -> None:
    assert terms().digest == terms(dreaming={"steps": 30}).digest
    own = {"run": {"threads": 2, "device": "auto"}, "data": {"clients": 3, "root": "/elsewhere"}}
    assert terms().digest == terms(**own).digest
    assert terms().digest != terms(dreaming={"steps": 31}).digest
    assert terms().digest != terms(images={**IMAGES, "mean": [0.4]}).digest


def test_terms_are_read_back_from_a_file_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "training.toml"
    path.write_text(tomli_w.dumps({"data": {"clients": 3}, "images": IMAGES}))
    assert load_training(path).digest == terms().digest
    assert load_training(path, ["dreaming.steps=5"]).config.dreaming.steps == 5


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"protocol": {"protection": "bfv"}}, "protocol.protection is 'bfv'"),
        ({"protocol": {"protection": "ckks-authority"}}, "protocol.protection is 'ckks-authority'"),
        ({"dreaming": {"adaptive": "jsd"}, "model": {"server": "mlp"}}, "dreaming.adaptive is 'jsd'"),
        ({"dreaming": {"collaborative": False}}, "dreaming.collaborative is false"),
        (
            {
                "dp": {"unit": "client", "epsilon": 8.0, "delta": 0.001, "clip": 1.0},
                "dreaming": {"labels": "probabilities"},
            },
            "dp.noise is 'auto', which under 'plain' leaves the noise to the server",
        ),
        ({"faults": {"contribute": 0.1}}, r"\[faults\]"),
        ({"run": {"target_accuracy": 0.5}}, "run.target_accuracy"),
        ({"images": {**IMAGES, "mean": [0.5, 0.5]}}, "images.mean has 2"),
        ({"images": {**IMAGES, "classes": 1}}, "images.classes"),
        ({"images": {**IMAGES, "colours": 1}}, "images.colours"),
        ({"dreaming": {"stpes": 3}}, "did you mean 'dreaming.steps'"),
    ],
)
def test_what_deployments_do_not_do_is_refused_by_name(sections: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        terms(**sections)


def test_methods_other_than_codream_are_refused() -> None:
    with pytest.raises(ConfigError, match="method is 'fedavg'"):
        make_training({"method": "fedavg", "data": {"clients": 3}, "images": IMAGES})


@pytest.mark.parametrize("content", [b"\xff", b"a = ", b"[data]\nclients = 3\n"])
def test_files_that_are_no_terms_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "training.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"not valid TOML|\[images\] is missing"):
        load_training(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_training(tmp_path / "absent.toml")


def test_the_roster_has_to_list_the_clients() -> None:
    keys = [Identity.generate().public_key for _ in range(3)]
    terms().check_roster(Roster(dict(enumerate(keys))))
    with pytest.raises(ConfigError, match=r"nobody under the numbers \[0\]"):
        terms().check_roster(Roster(dict(enumerate(keys, start=1))))
    with pytest.raises(ConfigError, match="the roster has 2 members"):
        terms().check_roster(Roster(dict(enumerate(keys[:2]))))


def result(values: int = 4) -> SumResult:
    return SumResult(
        total=np.linspace(-1, 1, values) / 3, weight=None, contributors=(0, 2), ring=np.zeros(0, dtype=np.uint32)
    )


def test_a_journal_gives_sums_back_to_the_bit_and_no_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.find(1, 0, stream="soft_labels", values=4) is None
    journal.keep(1, 0, result(), stream="soft_labels")
    found = Journal(tmp_path / "journal").find(1, 0, stream="soft_labels", values=4)
    assert found is not None
    assert np.array_equal(found.total, result().total)
    assert np.array_equal(found.mean(), result().mean())
    assert found.contributors == (0, 2)
    for wanted in ({"stream": "evaluation", "values": 4}, {"stream": "soft_labels", "values": 5}):
        with pytest.raises(CheckpointError, match="of another training"):
            journal.find(1, 0, **wanted)  # type: ignore[arg-type]
    assert journal.find(1, 1, stream="soft_labels", values=4) is None


def test_a_damaged_sum_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.keep(1, 0, result(), stream="x")
    path = next(tmp_path.rglob("*.npz"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="cannot be read"):
        journal.find(1, 0, stream="x", values=4)


def test_a_journal_remembers_over_whom_a_sum_was_half_opened(tmp_path: Path) -> None:
    Journal(tmp_path).bind(2, 3, (0, 2))
    assert Journal(tmp_path).only(2, 3) == (0, 2)
    assert Journal(tmp_path).only(2, 4) is None
    Journal(tmp_path).forget(3)
    assert Journal(tmp_path).only(2, 3) is None


def test_states_of_two_rounds_are_kept_for_the_owner_only(tmp_path: Path) -> None:
    states = States(tmp_path / "state", terms(), party="member 0")
    assert stat.S_IMODE(states.folder.stat().st_mode) == 0o700
    assert states.latest == -1
    for number in range(4):
        states.save(number, {"method": {"number": number}})
    assert states.latest == 3
    assert states.load(2)["method"] == {"number": 2}
    with pytest.raises(CheckpointError, match="no round 1"):
        states.load(1)
    # A round that is run again is the latest again.
    states.save(2, {"method": {"number": 20}})
    assert (states.latest, states.load(2)["method"]) == (2, {"number": 20})


def test_a_folder_belongs_to_one_party_under_one_set_of_terms(tmp_path: Path) -> None:
    States(tmp_path / "state", terms(), party="member 0")
    States(tmp_path / "state", terms(), party="member 0")
    for party, made in (("member 1", terms()), ("member 0", terms(dreaming={"steps": 5}))):
        with pytest.raises(ConfigError, match="another party or to other terms"):
            States(tmp_path / "state", made, party=party)


def write_npz(path: Path, *, labels: list[int], side: int = 8) -> str:
    images = np.random.default_rng(0).integers(0, 255, (len(labels), side, side), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=np.array(labels), x_test=images[:1], y_test=np.array(labels[:1]))
    return f"npz:{path}"


def test_a_client_need_not_have_every_class(tmp_path: Path) -> None:
    data = load_client_data(write_npz(tmp_path / "a.npz", labels=[2, 0, 2]), terms())
    assert data.train.labels.tolist() == [2, 0, 2]
    assert len(data.test) == 1


def test_images_other_than_the_terms_say_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(1, 9, 9\), but the terms"):
        load_client_data(write_npz(tmp_path / "a.npz", labels=[0, 1], side=9), terms())
    with pytest.raises(DataError, match="label 3, but the terms"):
        load_client_data(write_npz(tmp_path / "b.npz", labels=[0, 3]), terms())
    with pytest.raises(DataError, match="no file at"):
        load_client_data(f"npz:{tmp_path / 'absent.npz'}", terms())
    with pytest.raises(DataError, match="part is 3, but there are parts 0 to 2"):
        load_client_data("digits", terms(), part=3)


def test_folders_are_read_by_the_names_of_the_terms(tmp_path: Path) -> None:
    named = terms(images={**IMAGES, "classes": ["ant", "bee", "cat"]})
    for name in ("cat", "ant"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("L", (8, 8), 10 * number).save(tmp_path / name / f"{number}.png")
    data = load_client_data(f"images:{tmp_path}", named)
    assert sorted(set(data.train.labels.tolist())) == [0, 2]
    with pytest.raises(DataError, match="class 'cat' is not in the terms"):
        load_client_data(f"images:{tmp_path}", terms(images={**IMAGES, "classes": ["ant", "bee"]}))


def test_a_folder_that_others_have_a_right_to_is_refused(tmp_path: Path) -> None:
    for mode in (0o750, 0o701):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        with pytest.raises(IdentityError, match="chmod 700"):
            States(folder, terms(), party="member 0")


def test_files_of_a_party_are_for_the_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        states = States(tmp_path / "state", terms(), party="member 0")
        states.save(1, {"method": {}})
        journal = Journal(states.folder / "journal")
        journal.bind(1, 0, (0, 1))
        ring = np.zeros(0, np.uint32)
        journal.keep(
            1, 0, SumResult(total=np.zeros(2), weight=None, contributors=(0, 1), ring=ring), stream="soft_labels"
        )
    finally:
        os.umask(before)
    files = [path for path in states.folder.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


class Together(BaseChannel):
    """Means over all clients, here, of what they sent."""

    def __init__(self) -> None:
        super().__init__(make_protocol("plain"), 3)
        self.sent: dict[int, list[float]] = {}

    def begin_round(self, number: int) -> None:
        raise NotImplementedError

    def broadcast(self, tensors: Any, *, phase: str) -> Any:
        raise NotImplementedError

    def mean_at_clients(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError

    def _sum(self, contributions: Any, phase: str, weights: Any, **named: Any) -> SumResult:
        self.sent = {number: vector.tolist() for number, vector in flattened(contributions).items()}
        total = np.sum(list(self.sent.values()), axis=0, dtype=np.float64)
        return SumResult(total=total, weight=None, contributors=tuple(self.sent), ring=np.zeros(0, np.uint32))


def test_accuracies_are_sent_as_shares_and_say_no_number_of_images() -> None:
    channel = Together()
    shares = {0: 0.25, 1: 0.75, 2: None}
    found = mean_accuracy(channel, shares, bound=1000.0, device=torch.device("cpu"))
    assert found == pytest.approx(0.5)
    assert channel.sent == {0: [250.0, 1000.0], 1: [750.0, 1000.0], 2: [0.0, 0.0]}
    assert mean_accuracy(channel, {0: None}, bound=1000.0, device=torch.device("cpu")) is None
