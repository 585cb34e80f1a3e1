"""People of one picture: who hides whom follows from their fits, and those to whom that matters are fitted again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import HEIGHT, WIDTH, observe, open_body, person

from dsr_fit.body.parameters import Parameters
from dsr_fit.config import FitConfig, Stage
from dsr_fit.errors import InputError
from dsr_fit.fitting import together
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.fitting.together import fit_people, fit_pictures, observed_anew
from dsr_fit.labels import OCCLUDER, OTHER_PERSON, UNKNOWN, shows_person
from dsr_fit.observation import Observation


def _standing(seed: int, x: float, z: float) -> Observation:
    one = person(seed, spread=0.1)
    moved = one.cam_t.new_tensor([[x, 0.0, z]])
    return observe(Parameters(one.global_orient, one.body_pose, one.betas, moved))


@pytest.fixture(scope="module")
def couple() -> tuple[Observation, Observation]:
    """Somebody at 3.2 m, and another at 4.4 m half behind; each one's map marks the other's pixels."""
    front, rear = _standing(1, -0.15, 3.2), _standing(2, 0.28, 4.4)
    ahead = shows_person(front.labels)
    behind = shows_person(rear.labels) & ~ahead
    assert 0.1 < 1 - behind.sum() / shows_person(rear.labels).sum() < 0.4
    return (
        replace(front, labels=np.where(behind, OTHER_PERSON, front.labels)),
        replace(rear, labels=np.where(ahead, OTHER_PERSON, rear.labels)),
    )


@pytest.fixture(scope="module")
def fitter() -> Fitter:
    return Fitter(open_body(), FitConfig(stages=(Stage(56, 4),)))


@pytest.fixture(scope="module")
def alone(fitter: Fitter, couple: tuple[Observation, Observation]) -> list[FitResult]:
    return fitter.fit(list(couple))


class Recording:
    """A fitter that hands out the same results, and tells what it was asked for."""

    def __init__(self, fitter: Fitter, results: list[FitResult], *, second: Exception | None = None) -> None:
        self.renderer, self.results, self.second = fitter.renderer, results, second
        self.asked: list[list[Observation]] = []

    def fit_each(self, observations: list[Observation]) -> list[FitResult | Exception]:
        self.asked.append(observations)
        return [self._fit(one) for one in observations]

    def _fit(self, observation: Observation) -> FitResult | Exception:
        for result in self.results:
            if result.observation.detection is observation.detection:
                if result.observation is not observation and self.second is not None:
                    return self.second
                return replace(result, observation=observation)
        raise AssertionError("somebody else")


def _inside(result: FitResult) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: the fit's crop."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    (left, top), side = result.crop.origin, result.crop.side
    return (x > left) & (x < left + side) & (y > top) & (y < top + side)


def _anew(people: list[FitResult], fitter: Fitter) -> list[Observation]:
    """However little the label maps change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "CHANGED", 0.0)
        seen = observed_anew(people, fitter.renderer)
    return [one if one is not None else result.observation for one, result in zip(seen, people, strict=True)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_who_is_nearer_hides_and_who_is_behind_is_background(
    couple: tuple[Observation, Observation], alone: list[FitResult], fitter: Fitter, order: tuple[int, int]
) -> None:
    seen = dict(zip(order, _anew([alone[n] for n in order], fitter), strict=True))
    front, rear = couple
    others = (front.labels == OTHER_PERSON) & _inside(alone[0])
    assert (seen[0].labels[others] == 0).mean() > 0.98
    np.testing.assert_array_equal(seen[0].labels[~others], front.labels[~others])
    hidden = (rear.labels == OTHER_PERSON) & _inside(alone[1])
    assert (seen[1].labels[hidden] == OCCLUDER).mean() > 0.98
    own = shows_person(rear.labels)
    np.testing.assert_array_equal(seen[1].labels[own], rear.labels[own])
    assert front.labels.max() == rear.labels.max() == OTHER_PERSON  # what was observed is as it was


def test_a_nearer_body_hides_even_where_the_label_map_shows_background(
    couple: tuple[Observation, Observation], alone: list[FitResult], fitter: Fitter
) -> None:
    front, rear = couple
    blind = replace(rear, labels=np.where(rear.labels == OTHER_PERSON, 0, rear.labels))
    blind.labels[:10] = UNKNOWN
    people = [alone[0], replace(alone[1], observation=blind)]
    seen = _anew(people, fitter)[1]
    hidden = shows_person(front.labels) & _inside(alone[1])
    hidden[:10] = False
    assert (seen.labels[hidden] == OCCLUDER).mean() > 0.95
    assert (seen.labels[:10] == UNKNOWN).all()


def test_where_distances_are_alike_who_is_seen_is_in_front(alone: list[FitResult], fitter: Fitter) -> None:
    """The rear person's fit is a little nearer than the front one's; where they overlap the front one is seen."""
    front, rear = alone
    others = [(one.observation.labels == OTHER_PERSON) & _inside(one) for one in alone]
    closer = replace(rear, pelvis=front.pelvis * np.float32(0.97))
    seen = _anew([front, closer], fitter)
    assert (seen[0].labels[others[0]] == 0).mean() > 0.98
    assert (seen[1].labels[others[1]] == OCCLUDER).mean() > 0.98
    certain = replace(rear, pelvis=front.pelvis * np.float32(0.8))
    seen = _anew([front, certain], fitter)
    assert not (seen[0].labels[others[0]] == 0).any()
    assert (seen[1].labels[others[1]] == 0).mean() > 0.98


def test_people_alone_in_their_pictures_are_fitted_as_ever(
    couple: tuple[Observation, Observation], alone: list[FitResult], fitter: Fitter
) -> None:
    for result, before in zip(fit_people(fitter, couple, [3, 5]), alone, strict=True):
        assert isinstance(result, FitResult)
        np.testing.assert_array_equal(result.vertices, before.vertices)
        np.testing.assert_array_equal(result.observation.labels, before.observation.labels)


def test_the_second_fit_sees_the_new_label_map(
    couple: tuple[Observation, Observation], alone: list[FitResult], fitter: Fitter
) -> None:
    first, _ = fit_people(fitter, couple, [0, 0])
    (again,) = fitter.fit([_anew(alone, fitter)[0]])
    assert isinstance(first, FitResult)
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.observation.labels, again.observation.labels)
    assert np.abs(first.vertices - alone[0].vertices).max() > 1e-4


def test_only_those_whose_label_map_has_changed_are_fitted_again(
    couple: tuple[Observation, Observation], alone: list[FitResult], fitter: Fitter
) -> None:
    """The front person's map now shows background where the other was; the rear one's says already who hides it."""
    rear = _anew(alone, fitter)[1]
    recording = Recording(fitter, alone)
    results = fit_people(recording, [couple[0], rear], [0, 0])  # type: ignore[arg-type]
    assert [len(asked) for asked in recording.asked] == [2, 1]
    assert recording.asked[1][0].detection is couple[0].detection
    first, second = results
    assert isinstance(first, FitResult)
    assert isinstance(second, FitResult)
    assert first.timings_s["fit"] == pytest.approx(2 * alone[0].timings_s["fit"])
    assert second.observation is rear


def test_batches_hold_people_of_any_picture_and_no_more_than_asked(
    couple: tuple[Observation, Observation], alone: list[FitResult], fitter: Fitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "CHANGED", 0.1)
    recording = Recording(fitter, alone)
    results = fit_people(recording, couple * 3, [0, 0, 1, 1, 2, 2], batch_size=4)  # type: ignore[arg-type]
    assert [len(asked) for asked in recording.asked] == [4, 2, 4, 2]
    assert len(results) == 6


def test_the_first_fit_stays_where_the_second_fails(
    couple: tuple[Observation, Observation], alone: list[FitResult], fitter: Fitter
) -> None:
    recording = Recording(fitter, alone, second=InputError("diverged"))
    first, _ = fit_people(recording, couple, [0, 0])  # type: ignore[arg-type]
    assert isinstance(first, FitResult)
    assert first.observation is couple[0]


def test_who_can_not_be_observed_keeps_its_place(couple: tuple[Observation, Observation], fitter: Fitter) -> None:
    error = InputError("nobody")
    pictures = fit_pictures(fitter, [[error], [couple[0], error, couple[1]], []])
    assert [[type(one) for one in people] for people in pictures] == [
        [InputError], [FitResult, InputError, FitResult], [],
    ]  # fmt: skip
    (together,) = fit_pictures(fitter, [couple])
    for one, other in zip((pictures[1][0], pictures[1][2]), together, strict=True):
        assert isinstance(one, FitResult)
        assert isinstance(other, FitResult)
        np.testing.assert_array_equal(one.vertices, other.vertices)


def test_people_far_apart_do_not_see_each_other(fitter: Fitter, alone: list[FitResult]) -> None:
    front, rear = alone
    away = replace(rear, crop=replace(rear.crop, center=(10 * WIDTH, HEIGHT / 2)))
    assert observed_anew([front, away], fitter.renderer) == [None, None]
