"""Membership inference: was this candidate among the data that a model, or a federation, was trained on?"""

from attacks.membership.design import balanced_memberships, references
from attacks.membership.lira import lira_offline, lira_online
from attacks.membership.rmia import log_ratio_offline, log_ratio_online, rmia
from attacks.membership.scoring import ScoreKind, score_all
from attacks.membership.signals import antithetic, gradient_signal, logit_confidence
from attacks.membership.threshold import threshold_at

__all__ = [
    "ScoreKind",
    "antithetic",
    "balanced_memberships",
    "gradient_signal",
    "lira_offline",
    "lira_online",
    "log_ratio_offline",
    "log_ratio_online",
    "logit_confidence",
    "references",
    "rmia",
    "score_all",
    "threshold_at",
]
