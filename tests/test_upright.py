"""People who stand are fitted standing, where nothing is seen wrongly: the benchmark's measure, at a looser bound."""

from __future__ import annotations

from scenes import open_body
from upright import draw, fitted, fitter, measured


def test_straight_knees_stay_straight_and_bent_ones_bent() -> None:
    people = draw(open_body(), 32, seed=0)
    _, fits = fitted(fitter(open_body()), people.observations)
    report = measured(open_body(), people, fits)
    assert abs(report["standing"]["knee_bias"]) < 4
    assert report["knee"]["slope"] > 0.8
    assert report["standing"]["trunk_error_median"] < 4
