"""Speed of one dream step, the published formulation against this package's, and whether both dream the same dreams.

A dream step is the loss (entropy, feature matching, total variation and L2, published coefficients) and its gradient
with respect to the dreams. All variants take turns, one step each, so that whatever else the machine does slows them
alike; each is reported by its fastest turn. A model without batch norm has no feature term in the published code, so
there both run without.

Dreams are compared after ten Adam steps. Adam divides by the gradient's size, so a pixel whose gradient is lost in
rounding moves by the full learning rate in either direction, and rectifiers amplify that: the largest difference says
little without a scale. The scale is the published formulation against itself, from a start that is off by one rounding.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from codream_secure.bench.hardware import Gradient, as_cuda_graph, native_bfloat16, synchronise, threads
from codream_secure.bench.published import PublishedStep
from codream_secure.dreaming import Coefficients, DreamObjective, ServerOptimizer
from codream_secure.errors import ConfigError
from codream_secure.models import build_model

MODELS = ("lenet5", "small_cnn", "resnet18")
CLASSES = 10
STEPS, LEARNING_RATE = 10, 0.05
COMPARED_DREAMS = 16
_SECONDS, _MOST_TURNS = 2.0, 50
Observer = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model's result.

    Attributes:
        model: name in the registry.
        feature_matching: whether the feature term is part of the step.
        turns: how often each variant was timed.
        published_ms: one step of the published formulation, in milliseconds.
        ours_ms: one step of :class:`~codream_secure.dreaming.DreamObjective` in float32.
        ratio: published_ms over ours_ms.
        bf16_ms: the same under bfloat16 autocast; None where the hardware would emulate bfloat16.
        bf16_ratio: published_ms over bf16_ms.
        gradient_error: relative Euclidean distance of our float32 gradient from the published one, at the first step.
        gradient_error_bf16: the same under bfloat16 autocast.
        dreams_difference: largest absolute difference of a pixel, float32, after ten Adam steps of 0.05.
        dreams_difference_rms: root mean square of that difference.
        rounding_difference: the published formulation against itself, from a start off by one rounding; largest.
        rounding_difference_rms: its root mean square.
    """

    model: str
    feature_matching: bool
    turns: int
    published_ms: float
    ours_ms: float
    ratio: float
    bf16_ms: float | None
    bf16_ratio: float | None
    gradient_error: float
    gradient_error_bf16: float | None
    dreams_difference: float
    dreams_difference_rms: float
    rounding_difference: float
    rounding_difference_rms: float


@dataclass(frozen=True, kw_only=True)
class DreamingBenchmark:
    """All rows, and what they were measured on and with; ``bfloat16`` names the native instructions, if any."""

    torch: str
    device: str
    bfloat16: str | None
    threads: int
    images: int
    shape: tuple[int, int, int]
    steps: int
    learning_rate: float
    compared_dreams: int
    rows: tuple[Row, ...]


def bench_dreaming(
    models: Sequence[str] = MODELS,
    *,
    images: int = 256,
    shape: tuple[int, int, int] = (3, 32, 32),
    turns: int = 3,
    thread_count: int | None = None,
    device: torch.device | None = None,
    observe: Observer = lambda text: None,
) -> DreamingBenchmark:
    """Measure dream steps of several freshly initialised models.

    Args:
        models: names as for :func:`~codream_secure.models.build_model`.
        images: dreams per step.
        shape: (channels, height, width) of a dream.
        turns: how often each variant is timed at least; fast ones are timed up to 50 times within two seconds.
        thread_count: threads of torch; None leaves its own choice.
        device: the CPU by default. On CUDA our bfloat16 variant is replayed from a CUDA graph, which has not been run
            on hardware yet.
        observe: told what is being done, a line at a time.

    Raises:
        ModelError: a model is unknown or cannot take the images.
    """
    where = device or torch.device("cpu")
    built = {name: _calibrated(name, shape).to(where) for name in models}
    with threads(thread_count) as count:
        rows = tuple(
            _measure(name, model, _noise(images, shape).to(where), turns=turns, observe=observe)
            for name, model in built.items()
        )
    return DreamingBenchmark(
        torch=torch.__version__,
        device=torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        bfloat16=native_bfloat16(where),
        threads=count,
        images=images,
        shape=shape,
        steps=STEPS,
        learning_rate=LEARNING_RATE,
        compared_dreams=min(images, COMPARED_DREAMS),
        rows=rows,
    )


def image_shape(text: str) -> tuple[int, int, int]:
    """Read channels, height and width as they are given on the command line.

    >>> image_shape("3x32x32")
    (3, 32, 32)

    Raises:
        ConfigError: not three positive whole numbers with an ``x`` between them.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"shape={text!r} must be channels, height and width, such as 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


def _calibrated(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """A model whose batch norms have seen images other than the dreams, so that there is a distance to descend."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(name, channels=shape[0], image_size=shape[1:], num_classes=CLASSES)
        model(0.5 * torch.randn(64, *shape) + 0.3)
    return model.eval()


def _noise(images: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(images, *shape, generator=torch.Generator().manual_seed(1))


def _measure(name: str, model: nn.Module, dreams: torch.Tensor, *, turns: int, observe: Observer) -> Row:
    matching = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    coefficients = Coefficients() if matching else Coefficients(features=0.0)
    published = PublishedStep(model, coefficients)
    with ExitStack() as stack:
        # Each on a copy of its own: hooks on a shared model would make every variant pay for all of them.
        ours = stack.enter_context(DreamObjective(copy.deepcopy(model), dreams, coefficients=coefficients))
        variants: dict[str, Gradient] = {"published": published.gradient, "float32": ours.gradient}
        if native_bfloat16(dreams.device):
            reduced = DreamObjective(copy.deepcopy(model), dreams, coefficients=coefficients, autocast=torch.bfloat16)
            gradient = stack.enter_context(reduced).gradient
            variants["bfloat16"] = as_cuda_graph(gradient, dreams) if dreams.is_cuda else gradient
        observe(f"{name}: one step of each to warm up")
        first = {variant: gradient(dreams) for variant, gradient in variants.items()}
        seconds = _in_turns(variants, dreams, at_least=turns, observe=lambda text: observe(f"{name}: {text}"))
        few = dreams[:COMPARED_DREAMS]
        observe(f"{name}: {STEPS} Adam steps on {len(few)} dreams")
        reference = _dream(published.gradient, few)
        largest, rms = _difference(_dream(ours.gradient, few), reference)
        infinity = few.new_full((), float("inf"))
        largest_rounding, rms_rounding = _difference(_dream(published.gradient, few.nextafter(infinity)), reference)
    fastest = {variant: 1000 * min(times) for variant, times in seconds.items()}
    bf16 = fastest.get("bfloat16")
    return Row(
        model=name,
        feature_matching=matching,
        turns=len(seconds["published"]),
        published_ms=fastest["published"],
        ours_ms=fastest["float32"],
        ratio=fastest["published"] / fastest["float32"],
        bf16_ms=bf16,
        bf16_ratio=fastest["published"] / bf16 if bf16 else None,
        gradient_error=relative_error(first["float32"], first["published"]),
        gradient_error_bf16=relative_error(first["bfloat16"], first["published"]) if bf16 else None,
        dreams_difference=largest,
        dreams_difference_rms=rms,
        rounding_difference=largest_rounding,
        rounding_difference_rms=rms_rounding,
    )


def _in_turns(
    variants: Mapping[str, Gradient], dreams: torch.Tensor, *, at_least: int, observe: Observer
) -> dict[str, list[float]]:
    """Seconds of each variant's steps, the variants taking turns."""
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    started = time.perf_counter()
    for turn in range(max(at_least, _MOST_TURNS)):
        elapsed = time.perf_counter() - started
        if turn >= at_least and elapsed > _SECONDS:
            break
        if elapsed > _SECONDS or not turn:
            observe(f"turn {turn + 1} of {at_least}" + (f", {elapsed / turn:.1f} s each" if turn else ""))
        for variant, gradient in variants.items():
            synchronise(dreams.device)
            before = time.perf_counter()
            gradient(dreams)
            synchronise(dreams.device)
            seconds[variant].append(time.perf_counter() - before)
    return seconds


def _dream(gradient: Gradient, start: torch.Tensor) -> torch.Tensor:
    server = ServerOptimizer(start, lr=LEARNING_RATE)
    for _ in range(STEPS):
        server.step(gradient(server.dreams))
    return server.dreams


def _difference(found: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Largest absolute and root mean square difference."""
    difference = (found - expected).abs()
    return difference.max().item(), difference.square().mean().sqrt().item()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Euclidean norm of the difference over that of what was expected."""
    return ((found - expected).norm() / expected.norm()).item()
