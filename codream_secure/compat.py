"""Import torchvision safely on builds of torch that cannot load its compiled extension.

At import, torchvision loads its C++ extension ``_C``, which declares its detection operators, and then attaches
Python kernels to two of them, ``torchvision::nms`` and ``torchvision::qnms``. The wheel of the package registry
is compiled against a CUDA build of torch. Beside a CPU build the extension does not load, torchvision silently
goes on without it, and the import ends in ``RuntimeError: operator torchvision::nms does not exist``.

Nothing in this project calls those operators; it is enough that they are declared. This module declares the
missing ones, without an implementation, so the models, transforms and data sets import. Modules that import
torchvision themselves call :func:`import_torchvision`; those that import it through another package
(torchmetrics, timm) call :func:`ensure_torchvision_operators` before.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# Torch withdraws a library's declarations when the Library object is collected, so it lives as long as the module.
_libraries: list[torch.library.Library] = []


def ensure_torchvision_operators() -> tuple[str, ...]:
    """Declare the operators that torchvision needs at import, if and only if nothing else will.

    Declaring an operator that the extension declares too would abort the extension's loading. So the extension is
    tried first, in the way torchvision itself does it; where it loads, it has declared its operators, and this
    function adds nothing. The same holds where the operators exist already, and where torchvision is absent.

    Returns:
        The names of the operators declared by this call, without the namespace; empty on a healthy install and on
        every call but the first.
    """
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if not missing or _extension_loads():
        return ()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(_SCHEMAS[name])
    _libraries.append(library)
    return tuple(missing)


def import_torchvision() -> ModuleType:
    """Import torchvision and return the module, after :func:`ensure_torchvision_operators`.

    Raises:
        ImportError: torchvision is not installed.
    """
    ensure_torchvision_operators()
    return importlib.import_module("torchvision")


def _extension_loads() -> bool:
    """Whether torchvision's own extension can be loaded here; True also where there is no torchvision to repair.

    Mirrors ``torchvision.extension._load_library``, which cannot be called without importing torchvision. Loading
    the library a second time, as torchvision's import then does, is harmless: it is one handle to the loader.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return True
    folders = list(package.submodule_search_locations)
    extension = importlib.machinery.PathFinder.find_spec("_C", folders)
    if extension is None or extension.origin is None:
        return False
    if os.name == "nt":  # As torchvision does: the extension's neighbours must be on the DLL path.
        os.add_dll_directory(folders[0])  # type: ignore[attr-defined,unused-ignore]
    try:
        torch.ops.load_library(extension.origin)
    except (ImportError, OSError):
        return False
    return True
