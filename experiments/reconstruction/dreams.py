"""CoDream on the same images: what its dreams and the answers to named dreams give back of them.

A malicious server may put any picture into the place of a dream. Two things are tried: it names private images as they
are, and looks at how sure clients are of them; and it names private images under noise, follows the answers as it
would in dreaming, and hopes that they pull each picture to the one that was trained on. Held-out images go through the
same steps in the same batches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from attacks.laboratory import asked, record_round
from attacks.membership import gradient_signal
from attacks.metrics import auc
from attacks.public import Query
from attacks.reconstruction import psnr
from attacks.reconstruction.controls import median
from attacks.reconstruction.dream_neighbours import assess_dreams
from attacks.rows import Row
from attacks.views import NotInViewError, ServerView
from codream_secure.methods.codream import CoDream
from experiments.reconstruction.setting import Setting, each_protection, under

_NOISE = 0.5
"""Standard deviation, in normalised pixels: the picture can still be made out, so the server all but has it."""

_ROW = Row(
    method="codream", protection="plain", adversary="server", active=False, probe="", metric="PSNR, dB", value=None
)


def dreams_give(setting: Setting, architecture: str) -> None:
    """Rows of one architecture under every protection."""
    effort = setting.effort
    dreaming = {"images": effort.dreams, "steps": effort.steps}
    method = CoDream(setting.federation("codream", architecture, dreaming=dreaming))
    method.warm_up()
    named = _Named(setting, method)
    for one in each_protection(replace(_ROW, active=True)):
        setting.tell(f"named dreams, {one.protection}")
        named.labels(one)
        named.lengths(one)
        named.followed(one)
    transcript = record_round(method, 1)
    private = torch.cat([client.images for client in method.federation.clients])
    for one in each_protection(_ROW):
        setting.tell(f"finished dreams, {one.protection}")
        one = replace(
            one,
            probe="dreams as reconstructions",
            assumptions="follows the protocol; takes the finished dreams for private images",
        )
        view = ServerView.of_transcript(under(method, transcript, one.protection))
        if view.opened_by == "clients":
            setting.unseen(one, NotInViewError("a server sees nothing but the noise that dreams began with"))
            continue
        finished = torch.from_numpy(view.shown("dreams")[-1][0])
        found = assess_dreams(finished, private, held_out=setting.held_out, bounds=setting.bounds)
        note = f"control: the same dreams matched to held-out images; plain grey {found.grey.value:.1f} dB"
        setting.add(replace(one, note=note), found.private, control=found.held_out.value)


class _Named:
    """A malicious server that names the first client's images, and as many held-out ones, among public images."""

    def __init__(self, setting: Setting, method: CoDream) -> None:
        self._setting, self._method = setting, method
        count = min(len(method.federation.clients[0].images), setting.effort.dreams // 2)
        self._count = count
        self._private = method.federation.clients[0].images[:count]
        self._others = setting.held_out[:count]
        self._rest = setting.public[0][: setting.effort.dreams - 2 * count]

    def labels(self, row: Row) -> None:
        """How sure clients are of the images."""
        row = replace(
            row,
            probe="confidence in named images, uncalibrated",
            metric="AUC",
            assumptions="names private and held-out images as dreams, and asks for labels",
        )
        try:
            answers = self._ask(torch.cat([self._private, self._others]), "soft_labels", row.protection)
        except NotInViewError as reason:
            self._setting.unseen(row, reason)
            return
        logits = torch.from_numpy(answers).view(self._setting.effort.dreams, -1)[: 2 * self._count]
        self._setting.add(row, auc(logits.softmax(1).max(1).values.numpy(), self._members()), control=0.5)

    def lengths(self, row: Row) -> None:
        """How long the gradients are that come back."""
        row = replace(
            row,
            probe="gradients of named images, uncalibrated",
            metric="AUC",
            assumptions="names private and held-out images as dreams of a step",
        )
        try:
            answers = self._ask(torch.cat([self._private, self._others]), "dream_updates", row.protection)
        except NotInViewError as reason:
            self._setting.unseen(row, reason)
            return
        lengths = gradient_signal(answers.reshape(self._setting.effort.dreams, -1)[: 2 * self._count])
        self._setting.add(row, auc(lengths, self._members()), control=0.5)

    def followed(self, row: Row) -> None:
        """What following the answers does to pictures under noise."""
        setting, effort = self._setting, self._setting.effort
        row = replace(
            row,
            probe="answers followed from noisy images",
            metric="PSNR gained, dB",
            assumptions=(
                f"names private and held-out images under noise of {_NOISE:g} standard deviations, and moves them "
                f"along the answers, {effort.steps} steps by Adam"
            ),
        )
        targets = torch.cat([self._private, self._others])
        noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(setting.seed + 7))
        moving = targets + _NOISE * noise
        before = self._decibels(moving, targets)
        optimizer = torch.optim.Adam([moving], lr=self._method.config.dreaming.lr)
        best = before
        try:
            for _ in range(effort.steps):
                answers = self._ask(moving.detach(), "dream_updates", row.protection)
                gradient = torch.from_numpy(answers).float().view(effort.dreams, *setting.shape)
                moving.grad = gradient[: len(moving)]
                optimizer.step()
                now = self._decibels(moving, targets)
                best = now if now.mean() > best.mean() else best
        except NotInViewError as reason:
            setting.unseen(row, reason)
            return
        private, others = (now - before).split(self._count)
        own, control = median(private), median(others).value
        stopped = [float(part.median()) for part in (best - before).split(self._count)]
        note = (
            "control: the same of held-out images; stopped where the mean of all is best, "
            f"{stopped[0]:.2f} dB and {stopped[1]:.2f} dB"
        )
        setting.add(replace(row, note=note), own, control=control)

    def _members(self) -> np.ndarray:
        return np.arange(2 * self._count) < self._count

    def _decibels(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        unit = self._setting.bounds.to_unit
        return psnr(unit(images).clamp(0, 1), unit(targets))

    def _ask(self, images: torch.Tensor, stream: str, protection: str) -> np.ndarray:
        """The first client's own answer, or the mean of all clients' where no more is known; flat.

        Raises:
            NotInViewError: the server learns neither.
        """
        query = Query(images=torch.cat([images, self._rest]), stream=stream)  # type: ignore[arg-type]
        transcript = under(self._method, asked(self._method, [query]), protection)
        view = ServerView.of_transcript(transcript)
        try:
            return np.asarray(view.vectors(stream)[0][0])
        except NotInViewError:
            return np.asarray(view.means(stream)[0])
