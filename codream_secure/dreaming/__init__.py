"""Knowledge extraction: optimising a shared batch of dreams from every client's gradients."""

from codream_secure.dreaming.buffer import DreamBuffer
from codream_secure.dreaming.features import FeatureTap, default_feature_layers
from codream_secure.dreaming.objective import Coefficients, DreamObjective, frozen
from codream_secure.dreaming.spaces import DreamSpace, coordinates_of, make_space
from codream_secure.dreaming.updates import ServerOptimizer, local_update

__all__ = [
    "Coefficients",
    "DreamBuffer",
    "DreamObjective",
    "DreamSpace",
    "FeatureTap",
    "ServerOptimizer",
    "coordinates_of",
    "default_feature_layers",
    "frozen",
    "local_update",
    "make_space",
]
