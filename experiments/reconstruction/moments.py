"""Images from moments: what feature matching shows of clients with one image, with a few, and with many.

Per position, which is the default, a client's first mean is its mean image seen through one convolution; of a client
with one image it is that image. Per channel there are a few numbers only, and a search has to find pixels that have
them.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from attacks.reconstruction import psnr
from attacks.reconstruction.controls import median
from attacks.reconstruction.dream_gradient import DreamGradient
from attacks.reconstruction.feature_inversion import invert_moments, starts_from_public
from attacks.reconstruction.position_moments import recover_position_moments
from attacks.rows import Row
from attacks.views import NotInViewError, ServerView
from codream_secure.dreaming.objective import Coefficients
from experiments.reconstruction.norms import dreamt, steps_of
from experiments.reconstruction.setting import CLIENTS, Setting, each_protection, noted, under

_POSITION = "knows the loss, the dreams, and the first client's weights, buffers and number of images; not its moments"
_CHANNEL = "is handed the client's moments per channel, exactly, with its weights and buffers"
_RESTARTS = 4
_ROW = Row(
    method="codream", protection="plain", adversary="server", active=False, probe="", metric="PSNR, dB", value=None
)


def images_from_moments(setting: Setting) -> None:
    """Rows by numbers of images: mean images by position, and images from moments per channel."""
    for samples in setting.effort.sizes:
        _mean_images(setting, samples)
    _granted(setting)


def _mean_images(setting: Setting, samples: int) -> None:
    """Each client's mean image, from its own gradients or from the sum."""
    cohort = dreamt(setting, clients=CLIENTS, samples=samples, moments="position")
    targets = torch.stack([client.images.mean(0) for client in cohort.method.federation.clients])
    what = "the image of a client with 1" if samples == 1 else f"the mean image of {samples}"
    for row in each_protection(replace(_ROW, probe=f"{what}, by moments per position", assumptions=_POSITION)):
        setting.tell(f"{row.probe}, {row.protection}")
        view = ServerView.of_transcript(under(cohort.method, cohort.transcript, row.protection))
        dreams = [torch.from_numpy(arrays[0]) for arrays in view.shown("dreams")]
        try:
            try:
                vectors = view.vectors("dream_updates")
                gradients = [[step[number] for step in vectors] for number in range(CLIENTS)]
            except NotInViewError:
                gradients = [view.means("dream_updates")] * CLIENTS
                row = noted(row, "the sum is taken for each client's own: no fit of several clients at once is here")
            steps = [steps_of(dreams, each, clip=cohort.clip, wanted=4) for each in gradients]
        except NotInViewError as reason:
            setting.unseen(row, reason)
            continue
        own = row.protection == "plain"
        found = [
            recover_position_moments(
                model,
                seen,
                public=setting.public[0],
                coefficients=cohort.coefficients,
                single=samples == 1,
                restarts=_RESTARTS if own and samples == 1 else 1,
                iterations=setting.effort.iterations if own else setting.effort.wrong_iterations,
            )
            for model, seen in zip(cohort.trained, steps, strict=True)
        ]
        guesses = torch.stack([each.mean_image for each in found if each.mean_image is not None])
        row = noted(row, f"relative residual up to {max(each.residual for each in found):.1e}")
        if samples == 1:
            setting.reconstructed(row, guesses, targets)
        else:
            _against_public_mean(setting, row, guesses, targets)


def _against_public_mean(setting: Setting, row: Row, guesses: torch.Tensor, targets: torch.Tensor) -> None:
    """A mean of many images is like any other such mean: that of as many public images is what has to be beaten."""
    unit = setting.bounds.to_unit
    stranger = setting.public[0].mean(0, keepdim=True).expand_as(targets)
    own, control = (psnr(unit(images).clamp(0, 1), unit(targets)) for images in (guesses, stranger))
    setting.add(noted(row, "control: the mean of all public images"), median(own), control=median(control).value)


def _granted(setting: Setting) -> None:
    """Images of clients with one, from true moments per channel: an upper bound on what recovered ones would give."""
    row = replace(_ROW, probe="the image of a client with 1, by moments per channel granted", assumptions=_CHANNEL)
    setting.tell(row.probe)
    model = setting.new_model("small_cnn", "granted").eval()
    images = torch.cat([client.images for client in setting.federation("codream", "small_cnn", samples=1).clients])
    function = DreamGradient(model, Coefficients(), moments="channel")
    found = [
        invert_moments(
            model,
            function.measure(image[None].double()),
            starts=starts_from_public(
                setting.public[0],
                1,
                restarts=_RESTARTS,
                generator=torch.Generator().manual_seed(setting.seed * 1000 + place),
            ),
            bounds=setting.bounds,
            moments="channel",
            iterations=setting.effort.iterations,
        )
        for place, image in enumerate(images)
    ]
    row = noted(row, f"relative residual up to {max(each.loss for each in found):.1e}; no view says so much")
    setting.reconstructed(row, torch.cat([each.images for each in found]), images)
