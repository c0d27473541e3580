"""Data sets, their division among clients, and checks of both."""

from __future__ import annotations

from codream_secure.data.check import check_source
from codream_secure.data.dataset import DataSource, ImageFacts, ImageSet
from codream_secure.data.partition import Partition, partition
from codream_secure.data.plot import plot_partition
from codream_secure.data.sources import SourceInfo, list_sources, load_source
from codream_secure.data.split import hold_out

__all__ = [
    "DataSource",
    "ImageFacts",
    "ImageSet",
    "Partition",
    "SourceInfo",
    "check_source",
    "hold_out",
    "list_sources",
    "load_source",
    "partition",
    "plot_partition",
]
