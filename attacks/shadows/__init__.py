"""Shadow federations: many federations trained on random halves of one pool of images.

Each in turn is the target of a membership attack, and the others are what the adversary learnt to attack with.
"""

from attacks.shadows.pool import Pool, make_pool
from attacks.shadows.train import train_trials
from attacks.shadows.trial import Trained, rebuild

__all__ = ["Pool", "Trained", "make_pool", "rebuild", "train_trials"]
