"""Which models can be trained with per-example gradients, and whose layers would leak past them.

Opacus' own ``ModuleValidator`` looks only at layers with trainable parameters. A batch norm without any
(``affine=False``, or frozen) passes it: it normalises every image by the others of its batch, so that no bound on
single gradients holds, and its running statistics are private data without noise. Here all layers are looked at.

What cannot be seen from outside, such as a forward pass that depends on values or changes a buffer, shows when
:mod:`codream_secure.privacy.dpsgd` tries the model on blank images.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from codream_secure.errors import ModelError

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def check_trainable(model: nn.Module) -> None:
    """Refuse a model that cannot be trained privately.

    Refused are, wherever they stand and whether or not they are frozen: batch norms of any kind; layers that keep
    running statistics; layers that work in place; layers that have no weights yet; and weights that a hook computes
    (the older spectral and weight norm). Dropout is fine (training switches it off: its masks would come
    from a generator that is no secret, and one image more would change those of all others), and so is a weight that
    several layers share.

    Args:
        model: nothing of it is changed.

    Raises:
        ModelError: the message names every such layer and says what to use instead; or no parameter is trained.
    """
    faults = [
        f"{name or 'the model itself'}: {fault}" for name, module in model.named_modules() for fault in _faults(module)
    ]
    if faults:
        raise ModelError(f"{type(model).__name__} cannot be trained privately: {'; '.join(faults)}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"{type(model).__name__} has no parameter with requires_grad: there is nothing to train")


def _faults(module: nn.Module) -> Iterator[str]:
    kind = type(module).__name__
    statistics = [name for name, _ in module.named_buffers(recurse=False) if name in _STATISTICS]
    if isinstance(module, _BatchNorm):
        yield (
            f"{kind} mixes the images of a batch, and its statistics leak (take the model's variant with group norm, "
            "'NAME_gn', or codream_secure.models.convert_batch_norm_to_group_norm)"
        )
    elif statistics:
        yield (
            f"{kind} keeps {', '.join(statistics)}, private data without noise (use track_running_stats=False, "
            "or group norm)"
        )
    elif any(isinstance(parameter, nn.UninitializedParameter) for parameter in module.parameters(recurse=False)):
        yield f"{kind} has no weights yet (give its sizes, or run the model once on public images)"
    if isinstance(vars(module).get("weight"), torch.Tensor):
        yield f"{kind} has a weight that a hook computes, as for spectral or weight norm (remove the hook)"
    if getattr(module, "inplace", False):
        yield f"{kind} works in place (use codream_secure.models.norm.make_out_of_place)"
