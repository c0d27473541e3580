"""What the device offers: native bfloat16, CUDA graphs, a thread count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from codream_secure.errors import ConfigError

Gradient = Callable[[torch.Tensor], torch.Tensor]
# As torch's CPU capability queries are spelt in versions that have no ``torch.cpu.get_capabilities``.
_QUERIES = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}


def native_bfloat16(device: torch.device) -> str | None:
    """The instructions that multiply bfloat16 matrices natively, or None where they would be emulated.

    For a CPU, the answer is torch's own reading of its flags: AMX tiles first, then AVX-512 BF16, then Arm's BF16.
    """
    if device.type == "cuda":
        return "tensor_cores" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return next((name for name in ("amx_bf16", "avx512_bf16", "bf16") if capabilities.get(name)), None)
    return next((name for name, query in _QUERIES.items() if getattr(torch.cpu, query, lambda: False)()), None)


def find_device(name: str) -> torch.device:
    """``cpu`` or ``cuda``.

    Raises:
        ConfigError: another name, or no CUDA device is there.
    """
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r} must be cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda' but torch sees no CUDA device; use --device cpu")
    return torch.device(name)


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """That many threads for torch's operations inside the block, by default as many as torch would take."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def as_cuda_graph(gradient: Gradient, example: torch.Tensor) -> Gradient:
    """The same function for tensors like the example, recorded once as a CUDA graph and replayed at each call.

    This path has not been run on hardware yet; the tests marked ``gpu`` cover it.

    Args:
        gradient: a function of one CUDA tensor that never waits for the device.
        example: of the shape, dtype and device of all later arguments.
    """
    static = example.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # allocations and the choice of kernels must be over before the recording starts
            gradient(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = gradient(static)

    def replay(dreams: torch.Tensor) -> torch.Tensor:
        static.copy_(dreams)
        graph.replay()
        return result.clone()

    return replay
