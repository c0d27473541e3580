"""What fixed-point encoding reports, what it refuses, and what its errors say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocols import ContributionError, EncodingError, EncodingReport, FixedPoint

RELAXED = settings(deadline=None)


def test_the_report_says_what_was_clipped() -> None:
    encoding = FixedPoint(clip=1.0, clients=3)
    ring, report = encoding.encode(np.array([0.5, -1.5, 1.0, 7.0]))
    assert report == EncodingReport(values=4, clipped=2, max_rounding_error=2.0**-30)
    assert report.clipped_fraction == 0.5
    assert encoding.decode(ring).total.tolist() == [0.5, -1.0, 1.0, 1.0]
    assert encoding.encode(np.zeros(0)).report.clipped_fraction == 0.0


@pytest.mark.parametrize(("rounding", "share"), [("nearest", 0.5), ("stochastic", 1.0), ("toward_zero", 1.0)])
def test_the_report_states_the_bound_on_the_rounding_error(rounding: Any, share: float) -> None:
    encoding = FixedPoint(clip=3.0, clients=3, rounding=rounding)
    assert encoding.encode(np.zeros(1)).report.max_rounding_error == share * encoding.resolution == share * 2.0**-27


def test_what_was_handed_in_is_not_changed() -> None:
    for norm in ("linf", "l2"):
        values = np.array([0.5, -7.0, 3.0])
        FixedPoint(clip=1.0, clients=2, norm=norm).encode(values)
        assert values.tolist() == [0.5, -7.0, 3.0]


def test_the_bound_is_the_nearest_float32() -> None:
    """So that it is the same number in either precision."""
    encoding = FixedPoint(clip=0.1, clients=1, excess="refuse")
    assert encoding.clip == float(np.float32(0.1)) != 0.1
    encoding.encode(np.array([0.1], np.float32))
    encoding.encode(np.array([0.1], np.float64))
    with pytest.raises(ContributionError):
        encoding.encode(np.array([np.nextafter(np.float32(0.1), np.float32(1))]))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_what_is_not_finite_is_refused_with_its_place(kind: type, bad: float, name: str) -> None:
    values = np.array([0.5, 2.0, bad, 1.0, bad], kind)
    for encoding in (FixedPoint(clip=1.0, clients=1), FixedPoint(clip=1.0, clients=1, norm="l2")):
        with pytest.raises(ContributionError, match=f"the value at index 2 is {name}"):
            encoding.encode(values)


@pytest.mark.parametrize("index", [0, 40_000, 99_999])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.5, 1.5])
def test_one_value_is_found_wherever_it_is_in_a_long_vector(index: int, bad: float) -> None:
    values = np.full(100_000, 0.5, np.float32)
    values[index] = bad
    with pytest.raises(ContributionError, match=f"the value at index {index} is"):
        FixedPoint(clip=1.0, clients=1, excess="refuse").encode(values)


def test_a_value_beyond_the_bound_is_refused_with_its_place() -> None:
    with pytest.raises(ContributionError, match="the value at index 1 is beyond the bound of 1.0"):
        FixedPoint(clip=1.0, clients=1, excess="refuse").encode(np.array([1.0, -1.5, 2.0]))


@RELAXED
@given(
    st.sampled_from(["linf", "l2"]),
    hnp.arrays(np.float64, 4, elements=st.floats(1234.5, 9999.5) | st.sampled_from([np.nan, np.inf])),
    st.integers(1234, 9999),
)
def test_no_error_text_holds_a_private_value(norm: Any, values: np.ndarray, weight: int) -> None:
    """Numbers of four digits and more are looked for in texts whose own numbers have two."""
    encoding = FixedPoint(clip=2.0, clients=1, max_weight=9, norm=norm, excess="refuse")
    for vector, given_weight in ((values, 3), (values.reshape(2, 2), 3), (np.ones(3), weight), (values, weight)):
        with pytest.raises(ContributionError) as caught:
            encoding.encode(vector, weight=given_weight)
        text = str(caught.value)
        assert str(weight) not in text
        assert not any(str(int(value)) in text for value in values if np.isfinite(value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": 0.0}, "clip is 0.0"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"clip": math.nan}, "clip is nan"),
        ({"clip": math.inf}, "clip is inf"),
        ({"clip": 1e39}, r"clip is 1e\+39"),
        ({"clip": 1e-50}, "clip is 1e-50"),
        ({"clients": 2.5}, "clients is 2.5: it must be an integer"),
        ({"max_weight": "7"}, "max_weight is '7': it must be an integer"),
        ({"clients": 0}, "clients is 0"),
        ({"clients": -3}, "clients is -3"),
        ({"max_weight": 0}, "max_weight is 0"),
        ({"ring_bits": 16}, "ring_bits is 16"),
        ({"value_bits": 1}, "value_bits is 1"),
        ({"value_bits": 33}, "value_bits is 33"),
        ({"rounding": "up"}, "rounding is 'up': one of nearest, stochastic, toward_zero"),
        ({"norm": "l1"}, "norm is 'l1': one of linf, l2"),
        ({"excess": "ignore"}, "excess is 'ignore': one of clip, refuse"),
        ({"clients": 2**31}, "leave no room in a ring of 32 bits"),
        ({"clients": 2**16, "max_weight": 2**15}, "65536 clients with weights up to 32768"),
    ],
)
def test_encodings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with (
        np.errstate(over="ignore"),
        pytest.raises(EncodingError, match=message),
    ):
        FixedPoint(**({"clip": 1.0, "clients": 3} | changes))
