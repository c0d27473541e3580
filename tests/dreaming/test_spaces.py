"""Spaces of dreams: their images against independent transforms, their gradients, and what makes them public."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from codream_secure.dreaming import DreamSpace, coordinates_of, make_space
from codream_secure.dreaming.spaces import Dct, Latents, Pixels, Subspace, _bilinear
from codream_secure.errors import ConfigError

SIZES: dict[str, int | None] = {"pixels": None, "dct": 3, "subspace": 11, "latents": 13}
KINDS = tuple(SIZES)
IMAGE = (2, 7, 9)
"""Two channels, and sides that are odd and differ, so that nothing fits by symmetry."""


def space_of(kind: str, *, seed: int = 0, size: int | None = None, image: tuple[int, int, int] = IMAGE) -> DreamSpace:
    return make_space(kind, size or SIZES[kind], channels=image[0], image_size=image[1:], seed=seed)


def points_of(space: DreamSpace, count: int = 3, seed: int = 1) -> torch.Tensor:
    return space.start(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_points_and_images_have_the_shapes_and_types_said(kind: str) -> None:
    space = space_of(kind)
    points = points_of(space, 5)
    assert points.shape == (5, *space.shape)
    assert points.dtype == torch.float32
    assert points[0].numel() == space.coordinates
    assert space.coordinates == coordinates_of(kind, SIZES[kind], channels=2, image_size=IMAGE[1:])
    images = space.images(points)
    assert images.shape == (5, *IMAGE)
    assert images.dtype == torch.float32
    assert not images.requires_grad


def test_coordinates_are_counted_as_they_are_exchanged() -> None:
    assert [space_of(kind).coordinates for kind in KINDS] == [2 * 7 * 9, 2 * 3 * 3, 11, 13]


def test_pixels_are_the_noise_that_dreams_always_began_with() -> None:
    space = space_of("pixels")
    start = points_of(space, 4)
    assert torch.equal(start, torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(1)))
    assert space.images(start) is start
    gradient = torch.nn.Identity()
    assert space.pull_back(gradient) is gradient


@pytest.mark.parametrize("side", [1, 3, 7])
def test_dct_points_are_the_lowest_coefficients_of_scipys_orthonormal_transform(side: int) -> None:
    space = space_of("dct", size=side)
    points = points_of(space, 4).double()
    images = space.images(points).numpy()
    scale = math.sqrt(7 * 9) / side
    expected = np.zeros_like(images)
    expected[..., :side, :side] = scale * points.numpy().reshape(4, 2, side, side)
    np.testing.assert_allclose(dctn(images, axes=(2, 3), norm="ortho"), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "size"), [("dct", 3), ("dct", 7), ("subspace", 11), ("subspace", 126)])
def test_linear_spaces_have_an_orthonormal_basis_times_one_scale(kind: str, size: int) -> None:
    space = space_of(kind, size=size)
    basis = space.images(torch.eye(space.coordinates, dtype=torch.float64)).flatten(1)
    scale = math.prod(IMAGE) / space.coordinates
    torch.testing.assert_close(
        basis @ basis.T, scale * torch.eye(space.coordinates, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(space.images(torch.zeros(1, space.coordinates)), torch.zeros(1, *IMAGE))


@pytest.mark.parametrize("kind", ["dct", "subspace"])
def test_start_noise_has_pixels_of_unit_variance_on_average(kind: str) -> None:
    """The mean square over 4000 dreams; six standard deviations, so a false alarm has a chance below 1e-8."""
    space = space_of(kind)
    found = space.images(points_of(space, 4000)).square().mean().item()
    # By orthonormality it is that of 4000 p standard normal coordinates.
    assert abs(found - 1) < 6 * math.sqrt(2 / (4000 * space.coordinates))


def test_a_step_of_every_coordinate_moves_pixels_as_far_as_in_pixel_space() -> None:
    signs = torch.ones(1, 18)
    assert space_of("dct").images(0.2 * signs).square().mean().sqrt().item() == pytest.approx(0.2, rel=1e-5)
    space = space_of("subspace")
    assert space.images(0.2 * torch.ones(1, 11)).square().mean().sqrt().item() == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("kind", ["dct", "subspace", "latents"])
def test_the_same_seed_gives_the_same_space_and_another_seed_another(kind: str) -> None:
    points = points_of(space_of(kind))
    first, again, other = (space_of(kind, seed=seed).images(points) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    # Nothing of a DCT is random.
    assert torch.equal(first, other) == (kind == "dct")


def test_a_space_depends_on_no_global_state() -> None:
    points = points_of(space_of("latents"))
    torch.manual_seed(1)
    first = space_of("latents").images(points)
    torch.manual_seed(2)
    torch.randn(7)
    assert torch.equal(space_of("latents").images(points), first)


@pytest.mark.parametrize("kind", KINDS)
def test_images_pass_the_gradient_check_in_double_precision(kind: str) -> None:
    space = space_of(kind)
    assert torch.autograd.gradcheck(space.images, (points_of(space, 2).double().requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pulled_back_gradient_agrees_with_finite_differences_of_the_loss_of_the_images(kind: str) -> None:
    space = space_of(kind)
    weight = torch.randn(3, *IMAGE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss(points: torch.Tensor) -> float:
        images = space.images(points)
        return float((weight * images**3).sum())

    points = points_of(space).double()
    gradient = space.pull_back(lambda images: 3 * weight * images**2)(points)
    assert gradient.shape == points.shape
    assert not gradient.requires_grad
    assert not points.requires_grad
    generator = torch.Generator().manual_seed(7)
    for _ in range(5):
        direction = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        expected = (loss(points + 1e-6 * direction) - loss(points - 1e-6 * direction)) / 2e-6
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", ["dct", "subspace"])
def test_pulling_back_is_the_adjoint_of_making_images(kind: str) -> None:
    space = space_of(kind)
    points = points_of(space).double()
    gradient = torch.randn(3, *IMAGE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pulled = space.pull_back(lambda _: gradient)(points_of(space, seed=4).double())
    assert (pulled * points).sum().item() == pytest.approx((gradient * space.images(points)).sum().item(), rel=1e-10)


def test_gradients_are_pulled_back_where_autograd_is_off() -> None:
    space = space_of("latents")
    with torch.no_grad():
        assert space.pull_back(torch.ones_like)(points_of(space)).abs().sum() > 0


def test_images_of_one_dream_do_not_depend_on_the_others() -> None:
    for kind in KINDS:
        space = space_of(kind)
        points = points_of(space, 6)
        torch.testing.assert_close(space.images(points[2:4]), space.images(points)[2:4], rtol=1e-5, atol=1e-5)


def latents(lowest: list[float], highest: list[float], *, image: tuple[int, int, int] = (2, 12, 12)) -> DreamSpace:
    return make_space("latents", 16, channels=image[0], image_size=image[1:], seed=0, lowest=lowest, highest=highest)


def test_images_of_latents_stay_in_each_channels_range_and_use_most_of_it() -> None:
    low, high = [-0.8, -0.4], [1.8, 2.8]
    space = latents(low, high)
    images = space.images(points_of(space, 200))
    far = space.images(1e4 * points_of(space, 200))
    for channel, (least, most) in enumerate(zip(low, high, strict=True)):
        for each in (images[:, channel], far[:, channel]):
            assert each.min() >= least - 1e-5
            assert each.max() <= most + 1e-5
        assert images[:, channel].max() - images[:, channel].min() > 0.8 * (most - least)
    assert torch.isfinite(far).all()


def test_latents_start_from_images_around_the_datas_mean_that_differ_from_each_other() -> None:
    """0 is the mean after normalisation; 1 would be the data's own standard deviation."""
    for lowest, highest in (([-0.42], [2.82]), ([-0.81], [1.85]), ([-1.0], [1.0])):
        space = latents(lowest, highest, image=(1, 28, 28))
        images = space.images(points_of(space, 500))
        assert abs(images.mean()) < 0.1
        assert 0.4 < images.std(dim=0).mean() < 1.2


def test_images_of_latents_are_smooth() -> None:
    """Neighbours in noise of pixels differ by 2 in mean square, in relation to the variance."""
    space = latents([-0.8], [1.8], image=(1, 28, 28))
    images = space.images(points_of(space, 200))
    for axis in (2, 3):
        assert images.diff(dim=axis).square().mean() < 0.3 * images.var()


def test_upsampling_is_torchs_bilinear_interpolation() -> None:
    small = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.interpolate(small, size=(7, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(_bilinear(4, 7) @ small @ _bilinear(5, 10).T, expected)


@pytest.mark.parametrize("image", [(1, 1, 1), (1, 2, 3), (3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size_have_every_space(kind: str, image: tuple[int, int, int]) -> None:
    space = space_of(kind, size=None if kind == "pixels" else 1, image=image)
    images = space.images(points_of(space))
    assert images.shape == (3, *image)
    assert torch.isfinite(images).all()


def test_each_kind_is_what_it_is_called() -> None:
    for kind, expected in zip(KINDS, (Pixels, Dct, Subspace, Latents), strict=True):
        assert type(space_of(kind)) is expected


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("pixels", 4, "dreaming.space.size is 4, but pixels are as many as they are"),
        ("dct", None, "dreaming.space.size is missing: 'dct' needs one"),
        ("latents", None, "dreaming.space.size is missing: 'latents' needs one"),
        ("dct", 8, "dreaming.space.size is 8: for 'dct' on images of 2x7x9 use 1 to 7"),
        ("subspace", 127, "dreaming.space.size is 127: for 'subspace' on images of 2x7x9 use 1 to 126"),
        ("latents", 127, "use 1 to 126"),
        ("subspace", 0, "dreaming.space.size is 0"),
        ("fourier", 4, "dreaming.space.kind is 'fourier': choose one of pixels, dct, subspace, latents"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(kind: str, size: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_space(kind, size, channels=2, image_size=(7, 9), seed=0)
    with pytest.raises(ConfigError, match=message):
        coordinates_of(kind, size, channels=2, image_size=(7, 9))
