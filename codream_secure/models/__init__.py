"""Image classifiers for clients and server: one registry of names, each for any channel count, size and classes."""

from __future__ import annotations

from codream_secure.models.norm import convert_batch_norm_to_group_norm
from codream_secure.models.registry import ModelInfo, available_models, build_model, count_parameters

__all__ = [
    "ModelInfo",
    "available_models",
    "build_model",
    "convert_batch_norm_to_group_norm",
    "count_parameters",
]
