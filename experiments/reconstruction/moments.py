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
from experiments.reconstruction.norms import Cohort, dreamt, steps_of
from experiments.reconstruction.setting import CLIENTS, Setting, each_protection, under

_POSITION = "knows the loss, the dreams, and the first client's weights, buffers and number of images; not its moments"
_CHANNEL = "is handed the client's moments per channel, exactly, with its weights and buffers"
_ROW = Row(
    method="codream", protection="plain", adversary="server", active=False, probe="", metric="PSNR, dB", value=None
)


def images_from_moments(setting: Setting) -> None:
    """Rows by numbers of images: mean images by position, and images from moments per channel."""
    for samples in setting.effort.sizes:
        cohort = dreamt(setting, clients=CLIENTS, samples=samples, moments="position")
        _mean_image(setting, cohort, samples)
    for samples in setting.effort.sizes[:2]:
        _images(setting, samples)


def _mean_image(setting: Setting, cohort: Cohort, samples: int) -> None:
    what = "the image of a client with 1" if samples == 1 else f"the mean image of {samples}"
    target = cohort.method.federation.clients[0].images.mean(0, keepdim=True)
    for one in each_protection(replace(_ROW, probe=f"{what}, by moments per position", assumptions=_POSITION)):
        setting.tell(f"{one.probe}, {one.protection}")
        view = ServerView.of_transcript(under(cohort.method, cohort.transcript, one.protection))
        try:
            try:
                gradients = [step[0] for step in view.vectors("dream_updates")]
            except NotInViewError:
                gradients = view.means("dream_updates")
                one = replace(one, note="the sum is taken for the first client's: no fit of several clients is here")
        except NotInViewError as reason:
            setting.unseen(one, reason)
            continue
        found = recover_position_moments(
            cohort.trained[0],
            steps_of([torch.from_numpy(arrays[0]) for arrays in view.shown("dreams")], gradients, wanted=4),
            public=setting.public[0],
            coefficients=cohort.coefficients,
            single=samples == 1,
            restarts=8 if samples == 1 and one.protection == "plain" else 1,
            iterations=setting.effort.iterations,
        )
        if found.mean_image is None:
            setting.nothing(one, "the first matched layer is not affine in the image")
            continue
        one = replace(one, note="; ".join(filter(None, (one.note, f"relative residual {found.residual:.1e}"))))
        if samples == 1:
            setting.reconstructed(one, found.mean_image[None], target)
        else:
            _against_public_mean(setting, one, found.mean_image[None], target)


def _against_public_mean(setting: Setting, row: Row, guess: torch.Tensor, target: torch.Tensor) -> None:
    """A mean of many images is like any other such mean: that of public images is what has to be beaten."""
    unit = setting.bounds.to_unit
    own, control = (
        psnr(unit(image).clamp(0, 1), unit(target)) for image in (guess, setting.public[0].mean(0, keepdim=True))
    )
    row = replace(row, note=f"{row.note}; control: the mean of 150 public images")
    setting.add(row, median(own), control=median(control).value)


def _images(setting: Setting, samples: int) -> None:
    """Images from true moments per channel: an upper bound on what recovered ones would give."""
    row = replace(
        _ROW, probe=f"images of a client with {samples}, by moments per channel granted", assumptions=_CHANNEL
    )
    setting.tell(row.probe)
    model = setting.new_model("small_cnn", "granted").eval()
    images = setting.federation("codream", "small_cnn", samples=samples).clients[0].images
    wanted = DreamGradient(model, Coefficients(), moments="channel").measure(images.double())
    found = invert_moments(
        model,
        wanted,
        starts=starts_from_public(
            setting.public[0], samples, restarts=4, generator=torch.Generator().manual_seed(setting.seed)
        ),
        bounds=setting.bounds,
        moments="channel",
        iterations=setting.effort.iterations,
    )
    row = replace(row, note=f"relative residual {found.loss:.1e}; does not depend on protection")
    setting.reconstructed(row, found.images, images, batch=samples)
