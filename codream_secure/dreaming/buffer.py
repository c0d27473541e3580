"""The dreams that are learnt from: a first-in-first-out store of images and their soft labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class DreamBuffer:
    """Keeps the newest ``capacity`` dreams with their labels, in memory of its own.

    Attributes:
        images: (m, C, H, W) float32, oldest first; m = 0 with shape (0,) before the first :meth:`add`.
        labels: (m, classes) float32 logits, row by row the labels of ``images``.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: a buffer holds at least one dream")
        self.capacity = capacity
        self.images = torch.empty(0)
        self.labels = torch.empty(0)

    def __len__(self) -> int:
        return len(self.images)

    def add(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Append copies, and drop the oldest beyond the capacity.

        Args:
            images: (n, C, H, W) float32.
            labels: (n, classes) float32 logits.

        Raises:
            ValueError: the two differ in length.
        """
        if len(images) != len(labels):
            raise ValueError(f"images and labels differ in length: {len(images)} and {len(labels)}")
        self.images = self._appended(self.images, images)
        self.labels = self._appended(self.labels, labels)

    def _appended(self, kept: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        # torch.cat and clone allocate, so no later step of an optimiser can change a stored dream under its label.
        both = torch.cat([kept.to(new.device), new.detach()]) if len(kept) else new.detach()
        return both[-self.capacity :].clone()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Images and labels, for a checkpoint."""
        return {"images": self.images, "labels": self.labels}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.images, self.labels = state["images"].clone(), state["labels"].clone()
