"""The script's parts on tiny settings: what is in view comes back, and what is not is said to be missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.reconstruction import COSINE_TV
from attacks.rows import Row
from attacks.views import NotInViewError
from codream_secure.data import load_source
from codream_secure.errors import DataError
from experiments.reconstruction import __main__ as script
from experiments.reconstruction.dreams import dreams_give
from experiments.reconstruction.gradients import invert_gradients, nothing_to_invert
from experiments.reconstruction.neighbour import other_ones_image
from experiments.reconstruction.norms import statistics_recovered, steps_of
from experiments.reconstruction.setting import Effort, Setting

TINY = Effort(
    models=2,
    matching=(replace(COSINE_TV, steps=3), replace(COSINE_TV, steps=3, tv=1e-3)),
    public_trials=1,
    samples=8,
    dreams=16,
    steps=4,
    cohorts=(2,),
    sizes=(1,),
    iterations=12,
    wrong_iterations=1,
)


@pytest.fixture
def setting() -> Setting:
    return Setting(source=load_source("digits"), name="digits", root=None, seed=1, effort=TINY, tell=lambda text: None)


def rows(setting: Setting, **wanted: str) -> Iterator[Row]:
    return (row for row in setting.rows if all(getattr(row, name) == value for name, value in wanted.items()))


def row(setting: Setting, **wanted: str) -> Row:
    (found,) = rows(setting, **wanted)
    return found


def test_nobodys_images_are_controls_and_anothers_at_once(setting: Setting) -> None:
    private = torch.cat([client.images for client in setting.federation("fedavg", "mlp").clients])
    parts = [private, setting.public[0], setting.held_out]
    for place, images in enumerate(parts):
        for others in parts[place + 1 :]:
            assert torch.cdist(images.flatten(1), others.flatten(1)).min() > 0


def test_methods_share_clients_images(setting: Setting) -> None:
    first, other = setting.federation("fedavg", "mlp"), setting.federation("codream", "lenet5", samples=2)
    for one, same in zip(first.clients[:1], other.clients[:1], strict=True):
        assert torch.equal(one.images[:2], same.images)


def test_a_perceptron_gives_its_image_in_clear_and_not_under_encryption(setting: Setting) -> None:
    invert_gradients(setting, "mlp")
    nothing_to_invert(setting, "mlp")
    plain = row(setting, method="fedavg", protection="plain", metric="PSNR, dB")
    assert plain.value is not None
    assert plain.value > 100
    assert plain.n == 8
    assert plain.control is not None
    assert plain.control < 30
    assert row(setting, method="fedavg", protection="plain", metric="rank 1 of 100").value == 1
    masked = row(setting, method="fedavg", protection="masked", metric="PSNR, dB")
    assert masked.value is not None
    assert masked.value < 50
    assert "not in view" in row(setting, method="fedavg", protection="bfv").note
    for nothing in rows(setting, method="codream"):
        assert nothing.value is None
        assert "no gradient by weights is in this view" in nothing.note


def test_settings_are_chosen_on_public_images(setting: Setting) -> None:
    invert_gradients(setting, "lenet5")
    assert "total variation" in row(setting, protection="plain", metric="PSNR, dB").note


def test_another_client_gives_its_image_under_every_protection(setting: Setting) -> None:
    other_ones_image(setting, "mlp")
    found = [one.value for one in rows(setting, metric="PSNR, dB")]
    assert len(found) == 3
    assert all(value is not None and value > 90 for value in found)


def test_dreams_are_measured_beside_held_out_images(setting: Setting) -> None:
    dreams_give(setting, "lenet5")
    for protection in ("plain", "masked"):
        for one in rows(setting, protection=protection):
            assert one.value is not None
            assert one.control is not None
    encrypted = list(rows(setting, protection="bfv"))
    assert len(encrypted) == 4
    assert all(one.value is None and one.note.startswith("not in view") for one in encrypted)


def test_sums_give_statistics_where_weights_are_known(setting: Setting) -> None:
    statistics_recovered(setting)
    each = "relative error, each client"
    masked = row(setting, method="codream", protection="masked", metric=each, probe=_probe(2, 8))
    assert masked.value is not None
    assert masked.control is not None
    assert masked.value < 1e-3 < masked.control
    sent = row(setting, method="fedavg", protection="plain", metric=each, probe=_probe(2, 8))
    assert sent.value is not None
    assert sent.value < 1e-5
    assert all("trains no statistics" in one.note for one in rows(setting, probe=_probe(4, 1)))


def _probe(clients: int, samples: int) -> str:
    return f"batch-norm statistics, K = {clients}, {samples} image{'s' if samples > 1 else ''} each"


def test_clipped_steps_are_left_out() -> None:
    dreams = [torch.full((1, 1, 2, 2), float(step)) for step in range(4)]
    gradients = [np.full(4, value) for value in (64.0, 1.0, 2.0, 3.0)]
    assert [float(step.gradient.max()) for step in steps_of(dreams, gradients, clip=64.0)] == [1.0, 2.0, 3.0]
    with pytest.raises(NotInViewError, match="clipped"):
        steps_of(dreams[:2], gradients[:2], clip=64.0)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="training images"):
        Setting(source=load_source("digits"), name="digits", root=None, seed=0, effort=replace(TINY, samples=500))


def test_the_command_writes_rows_and_no_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(script.PARTS, script.Part.GRADIENTS, lambda setting: other_ones_image(setting, "mlp"))
    out = tmp_path / "found.json"
    script.main(out=out, seeds=2, only=[script.Part.GRADIENTS])
    found = json.loads(out.read_text())
    assert found["pictures"] == []
    assert found["environment"]["torch_threads"] == 1
    assert {entry["seed"] for entry in found["rows"]} == {0, 1, None}
    assert (
        "| passive client | gradient inversion, perceptron, mean less one's own | PSNR, dB |" in capsys.readouterr().out
    )
