"""Knowledge extraction: optimising a shared batch of images from every client's gradients."""

from codream_secure.dreaming.buffer import DreamBuffer
from codream_secure.dreaming.features import FeatureTap, default_feature_layers
from codream_secure.dreaming.objective import Coefficients, DreamObjective, frozen
from codream_secure.dreaming.updates import ServerOptimizer, local_update

__all__ = [
    "Coefficients",
    "DreamBuffer",
    "DreamObjective",
    "FeatureTap",
    "ServerOptimizer",
    "default_feature_layers",
    "frozen",
    "local_update",
]
