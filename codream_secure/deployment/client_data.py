"""A client's own images, fitted to what the terms of training say about everybody's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from codream_secure.data import DataSource, ImageSet, load_source
from codream_secure.data.npz import read_npz
from codream_secure.deployment.training import TrainingTerms
from codream_secure.errors import DataError
from codream_secure.federation import divided


@dataclass(frozen=True)
class ClientData:
    """What one client trains on, and what it measures its own accuracy on."""

    train: ImageSet
    test: ImageSet


def load_client_data(spec: str, training: TrainingTerms, *, part: int | None = None) -> ClientData:
    """A client's images.

    A client need not have images of every class, so classes are those of the terms: labels of arrays count from 0 in
    their order; folders of images bear their names, or, where the terms only say how many there are, are all there.

    Args:
        spec: ``npz:FILE``, ``images:FOLDER``, or a named data set; see :func:`codream_secure.data.load_source`.
        training: says classes and shape.
        part: for demonstrations: which part of the data set, when it is divided as the section ``[data]`` says.

    Raises:
        DataError: the data are missing, broken, or others than the terms say.
    """
    kind, _, rest = spec.partition(":")
    data = training.config.data
    if part is not None:
        source = load_source(spec, root=data.root, download=data.download)
        parts = divided(source, training.config).clients
        if not 0 <= part < len(parts):
            raise DataError(f"part is {part}, but there are parts 0 to {len(parts) - 1}")
        found = ClientData(source.train.subset(parts[part]), source.test)
    elif kind == "npz":
        path = Path(rest).expanduser()
        if not path.is_file():
            raise DataError(f"{spec}: no file at {path}")
        found = ClientData(*read_npz(path, name=spec))
    else:
        source = load_source(spec, root=data.root, download=data.download)
        found = _by_name(source, training.images.class_names) if kind == "images" else _whole(source)
    _check(found, training, spec)
    return found


def _whole(source: DataSource) -> ClientData:
    return ClientData(source.train, source.test)


def _by_name(source: DataSource, names: tuple[str, ...] | None) -> ClientData:
    """Folders' labels as the terms number them.

    Raises:
        DataError: a folder has another name.
    """
    if names is None:
        return _whole(source)
    strangers = [name for name in source.class_names if name not in names]
    if strangers:
        raise DataError(
            f"{source.name}: class {strangers[0]!r} is not in the terms, images.classes: {', '.join(names)}"
        )
    numbers = torch.tensor([names.index(name) for name in source.class_names])
    return ClientData(
        *(ImageSet(images=part.images, labels=numbers[part.labels]) for part in (source.train, source.test))
    )


def _check(found: ClientData, training: TrainingTerms, spec: str) -> None:
    images = training.images
    expected = (images.channels, *images.image_size)
    for name, part in (("train", found.train), ("test", found.test)):
        if tuple(part.images.shape[1:]) != expected:
            raise DataError(
                f"{spec}: images of the {name} part have shape {tuple(part.images.shape[1:])}, but the terms of "
                f"training say (channels, height, width) = {expected}"
            )
        if len(part) and int(part.labels.max()) >= images.num_classes:
            raise DataError(
                f"{spec}: the {name} part has a label {int(part.labels.max())}, but the terms of training say "
                f"{images.num_classes} classes, counted from 0"
            )
