"""Reconstruction of private images from what a server receives, and the controls that every figure is read beside."""

from __future__ import annotations

from attacks.reconstruction.analytic import begins_linear, invert_first_linear, linear_input
from attacks.reconstruction.controls import Reconstruction, assess
from attacks.reconstruction.image_metrics import (
    FeatureDistance,
    PixelBounds,
    derivative_distance,
    match,
    network_distance,
    psnr,
)
from attacks.reconstruction.imprint import Imprint, build_imprint, invert_imprint
from attacks.reconstruction.label_recovery import label_counts, labels_from_counts, mean_predictions, single_label
from attacks.reconstruction.matching import (
    COSINE_TV,
    DEEP_LEAKAGE,
    Guess,
    Matching,
    choose_settings,
    invert_gradient,
    match_gradients,
)
from attacks.reconstruction.norm_modes import NORM_MODES, NormMode, Observation, fedsgd_gradient
from attacks.reconstruction.unrolled import LocalTraining, invert_update, local_update

__all__ = [
    "COSINE_TV",
    "DEEP_LEAKAGE",
    "NORM_MODES",
    "FeatureDistance",
    "Guess",
    "Imprint",
    "LocalTraining",
    "Matching",
    "NormMode",
    "Observation",
    "PixelBounds",
    "Reconstruction",
    "assess",
    "begins_linear",
    "build_imprint",
    "choose_settings",
    "derivative_distance",
    "fedsgd_gradient",
    "invert_first_linear",
    "invert_gradient",
    "invert_imprint",
    "invert_update",
    "label_counts",
    "labels_from_counts",
    "linear_input",
    "local_update",
    "match",
    "match_gradients",
    "mean_predictions",
    "network_distance",
    "psnr",
    "single_label",
]
