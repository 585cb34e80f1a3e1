"""A regressor judged on rendered people, and a gate calibrated on them: as by the pipeline's parts one by one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import open_body

from dsr_fit.config import FitConfig, LeastSquares, Stage
from dsr_fit.dataset.observing import CachedObserver, read_observations, write_observations
from dsr_fit.dataset.records import PackedObservation, PersonObservation
from dsr_fit.dataset.run import Resources, read_results
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Person, Source
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate import ccp, metrics
from dsr_fit.evaluate.benchmark import CASE_METRICS, at_focal, case_metrics, observe_image, vertex_errors
from dsr_fit.evaluate.cached_source import CachedSource, case_source, photo_source, seed_of
from dsr_fit.evaluate.calibrate_gate import calibrate_gate, calibration_seeds, summary_of
from dsr_fit.evaluate.regressor import PHOTO_METRICS, EvaluationSets, evaluate, metrics_on_photos, read_values
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.metrics import keypoint_errors
from dsr_fit.fitting.result import FitResult
from dsr_fit.gate import calibration as gate_calibration
from dsr_fit.gate.evidence import EVIDENCE, FitSummary, evidence
from dsr_fit.gate.gate import Gate, read_gate, write_gate
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.observe.perception import Perception
from dsr_fit.synthetic.dataset import read_case, write_cases

SEEDS = (3, 5, 9)
QUICK = FitConfig(least_squares=LeastSquares(pose_steps=2, steps=6), stages=(Stage(56, 2),))
SETTINGS = Settings(config=QUICK, body="open", regressor="open")
ONE = Resources(observers=1, fitters=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    write_cases(folder, SEEDS)
    return folder


@pytest.fixture(scope="module")
def judged(folder: Path) -> dict[str, np.ndarray]:
    """What `evaluate` writes of these people."""
    people = case_source(folder, SEEDS, folder / "findings")
    evaluate(SETTINGS, EvaluationSets(cases=people), folder / "evaluation", ONE)
    return read_values(folder / "evaluation" / "cases.npz")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[int, Observation]:
    """What the pipeline sees of those whom the detector finds."""
    perception = Perception()
    seen = [observe_image(read_case(folder, seed), folder / f"{seed:06d}.png", perception) for seed in SEEDS]
    return {item.seed: item.observation for item in seen if item.observation is not None}


@pytest.fixture(scope="module")
def fits(told: dict[int, Observation]) -> dict[int, FitResult]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker's
    results = Fitter(open_body(), QUICK).fit(list(told.values()))
    torch.set_num_threads(threads)
    return dict(zip(told, results, strict=True))


def test_people_are_judged_as_the_pipeline_finds_them(
    folder: Path, judged: dict[str, np.ndarray], told: dict[int, Observation], fits: dict[int, FitResult]
) -> None:
    """Estimate and fit of each, by hand. The tolerance is single precision's, through files."""
    assert [seed_of(name) for name in judged["name"]] == list(told)
    expected = {f"{who}_{name}" for who in ("estimate", "fit") for name in (*CASE_METRICS, "energy")}
    assert set(judged) == {"name", "fit_iterations"} | expected
    fitter = Fitter(open_body(), QUICK)
    batch = Batch(list(told.values()), crop_camera=False, keypoint_valid=open_body().skeleton.keypoint_valid)
    estimates = fitter.regressor(batch).parameters
    for row, (seed, result) in enumerate(fits.items()):
        case = read_case(folder, seed)
        estimate = estimates.map(lambda value, row=row: value[row : row + 1])
        scale = torch.tensor([1.0, 1.0, case.focal_length / told[seed].focal_length])
        by_hand = {
            "estimate": case_metrics(fitter, case, replace(estimate, cam_t=estimate.cam_t * scale)),
            "fit": case_metrics(fitter, case, at_focal(result.parameters(), result.focal_length, case.focal_length)),
        }
        for who, values in by_hand.items():
            for name, value in values.items():
                assert judged[f"{who}_{name}"][row] == pytest.approx(value, rel=1e-3, abs=1e-2)
        energy = {
            when: sum(weight * result.energies[name][when] for name, weight in vars(QUICK.weights).items())
            for when in ("initial", "final")
        }
        assert judged["estimate_energy"][row] == pytest.approx(energy["initial"], rel=1e-4)
        assert judged["fit_energy"][row] == pytest.approx(energy["final"], rel=1e-4)
        assert judged["fit_iterations"][row] == result.iterations


def test_orientation_is_the_angle_between_the_roots(
    folder: Path, judged: dict[str, np.ndarray], fits: dict[int, FitResult]
) -> None:
    """By the trace of the relative rotation, of scipy's matrices."""
    from scipy.spatial.transform import Rotation

    for row, (seed, result) in enumerate(fits.items()):
        ours, truth = (
            Rotation.from_rotvec(v).as_matrix() for v in (result.global_orient, read_case(folder, seed).global_orient)
        )
        angle = np.degrees(np.arccos(np.clip((np.trace(ours.T @ truth) - 1) / 2, -1, 1)))
        assert judged["fit_orientation"][row] == pytest.approx(angle, abs=0.05)


def test_a_row_has_the_evidence_of_its_fit(
    folder: Path, judged: dict[str, np.ndarray], fits: dict[int, FitResult]
) -> None:
    """Whatever the gate looks at is in the shards; single precision."""
    rows = {seed_of(row["imgname"]): row for row in read_results(folder / "evaluation" / "cases")}
    for seed, result in fits.items():
        in_memory = evidence(FitSummary.of_result(result))
        assert list(in_memory) == list(EVIDENCE)
        assert evidence(summary_of(rows[seed])) == pytest.approx(in_memory, rel=1e-4, abs=1e-6, nan_ok=True)


def test_photos_are_judged_against_their_annotation(fits: dict[int, FitResult], told: dict[int, Observation]) -> None:
    """The body's own silhouette as annotation: area ratio and containment are 1, and the keypoints' error is theirs."""
    fitter = Fitter(open_body(), QUICK)
    seed, result = next(iter(fits.items()))
    parameters, observation = result.parameters(), told[seed]
    intrinsics = torch.tensor([[observation.focal_length] * 2 + list(observation.principal_point)])
    height, width = observation.labels.shape
    mask = fitter.renderer(parameters.pose(fitter.body).vertices(), intrinsics.float(), (height, width)).mask[0]
    truth = replace(observation, labels=(5 * mask.numpy()).astype(np.uint8))
    values = metrics_on_photos(fitter, [parameters], [truth])
    assert set(values) == set(PHOTO_METRICS)
    assert values["containment"] == pytest.approx(1, abs=0.03)  # the crop's pixels against the image's
    assert values["area_ratio"] == pytest.approx(1, abs=0.04)
    batch = Batch([truth], crop_camera=False, keypoint_valid=open_body().skeleton.keypoint_valid)
    error = keypoint_errors(parameters.pose(open_body()).keypoints, batch.points)[1]
    assert values["keypoint_error_rel"] == pytest.approx(float(error))


def test_annotated_photos_through_the_whole_pipeline(shared_dir: Path, tmp_path: Path) -> None:
    data = shared_dir / "data" / "ccp"
    photos = photo_source(data, tmp_path / "findings", ccp.photo_numbers(data, "tune")[:2])
    evaluate(SETTINGS, EvaluationSets(photos=photos), tmp_path, ONE)
    values = read_values(tmp_path / "photos.npz")
    assert list(values["name"]) == ["0005.jpg", "0015.jpg"]
    assert (values["estimate_keypoint_error_rel"] < 0.05).all()
    # A single fit may give up a little of its keypoints for its clothing; together they come nearer.
    assert values["fit_keypoint_error_rel"].mean() < values["estimate_keypoint_error_rel"].mean()
    assert (values["fit_energy"] < values["estimate_energy"]).all()
    # Nothing is done again: neither the detector's work nor the fits.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.is_file()}
    evaluate(SETTINGS, EvaluationSets(photos=photos), tmp_path, ONE)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.is_file()} == before


# --- A gate of one's own --------------------------------------------------------------------------


def test_a_gate_learnt_from_fits_holds_for_their_fitter_alone(
    folder: Path, judged: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right fits are those below the limit, here the middle of these people's errors."""
    errors = np.sort(judged["fit_pve"])
    monkeypatch.setattr(gate_calibration, "LIMIT_MM", float(errors[:2].mean()))
    people = case_source(folder, SEEDS, folder / "findings")
    found = calibrate_gate(SETTINGS, people, tmp_path / "work", ONE)
    assert found["calibration"]["fits"] == len(errors)
    assert found["calibration"]["right"] == pytest.approx(1 / len(errors))
    path = tmp_path / "gate.json"
    write_gate(path, found)
    gate = Gate.of(Fitter(open_body(), QUICK), path)
    assert gate.holds
    assert gate.bias == found["bias"]
    with pytest.raises(UsageError, match="calibrated for another pose_prior; give the gate that goes with"):
        Gate.of(Fitter(open_body(), replace(QUICK, pose_prior="ranges")), path)
    # It is a part of what a run is made from.
    with_gate = replace(SETTINGS, gate=path)
    assert with_gate.identity() != SETTINGS.identity()
    assert "gate" not in SETTINGS.identity()
    rows = list(people.fit(with_gate, tmp_path / "fits", ONE))
    fitted = [row for row in rows if row["status"] != "failed"]
    assert all(row["quality"] is not None for row in fitted)
    assert all((row["status"] == "accepted") == (row["quality"] >= gate.threshold - 1e-6) for row in fitted)
    with pytest.raises(UsageError, match="calibrated for another pose_prior"):
        list(people.fit(replace(with_gate, config=replace(QUICK, pose_prior="ranges")), tmp_path / "other", ONE))
    assert not (tmp_path / "other" / "manifest.json").exists()


def test_fits_that_are_all_wrong_teach_nothing() -> None:
    table = gate_calibration.Table(np.zeros((4, len(EVIDENCE))), np.full(4, 200.0), 0)
    with pytest.raises(InputError, match="0 of 4 fits of rendered people are right"):
        gate_calibration.calibrate(table, {})


def test_evidence_that_no_fit_has_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((200, 2))
    right = rng.random(200) > values[:, 0]
    values[:, 1] = np.nan
    model = gate_calibration.learn(values, right, ridge=1.0)
    alone = gate_calibration.learn(values[:, :1], right, ridge=1.0)
    np.testing.assert_allclose(model.quality(values), alone.quality(values[:, :1]), atol=1e-3)  # two searches' ends


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty (0 bytes)"),
        ("[]", "indices"),
        ('{"bias": 1}', "'costs'"),
        (
            '{"bias": 1, "threshold": 1, "costs": {"luck": {}}, "bound_to": {"labels_source": ""}}',
            "unknown evidence luck",
        ),
        (
            '{"bias": 1, "threshold": 1, "costs": {"pose": {"knots": [0, 1], "rises": [], "usual": 0}}}',
            "wrong shapes",
        ),
    ],
)
def test_a_file_that_is_no_gate_is_one_line(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text(content)
    with pytest.raises(InputError, match="quality gate|is empty") as told:
        read_gate(path)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="no such quality gate"):
        read_gate(tmp_path / "none.json")


def test_people_a_gate_learns_from_are_in_no_report() -> None:
    for count in (0, 10, 64, 100):
        seeds = calibration_seeds(count)
        assert len(set(seeds)) == count
        assert not set(seeds) & set(range(10_000, 20_000))


# --- What perception found, kept ------------------------------------------------------------------


def _found(world: bool) -> PackedObservation:
    rng = np.random.default_rng(0)
    landmarks = rng.normal(size=(49, 4)).astype(np.float32) if world else None
    keypoints = rng.normal(size=(49, 3)).astype(np.float32)
    features = rng.normal(size=20).astype(np.float16) if world else None
    return PackedObservation(
        keypoints, landmarks, b"\0png\0", "open", "blazepose-heavy", 0.75, 812.25, (640, 480), features
    )


def test_what_was_found_is_read_as_it_was_written(tmp_path: Path) -> None:
    seen = [
        PersonObservation("a/b.jpg", 0, 7, _found(True)),
        PersonObservation("a/b.jpg", 1, 8, _found(False)),
        PersonObservation("a/b.jpg", 2, reason="no"),
    ]
    write_observations(tmp_path / "b.npz", seen)
    again = read_observations(tmp_path / "b.npz", "a/b.jpg")
    for one, other in zip(seen, again, strict=True):
        assert replace(one, found=None) == replace(other, found=None)
        assert (one.found is None) == (other.found is None)
        for name, value in vars(one.found).items() if one.found else ():
            np.testing.assert_array_equal(value, getattr(other.found, name))


def test_an_image_is_looked_at_once(tmp_path: Path) -> None:
    looked: list[str] = []

    def look(entry: Entry) -> list[PersonObservation]:
        looked.append(entry.imgname)
        return [PersonObservation(entry.imgname, 0, found=_found(True))]

    for _ in range(2):
        perceive = CachedObserver(tmp_path, tmp_path / "images", lambda: look)
        assert [perceive(Entry(name))[0].imgname for name in ("x.jpg", "../x.jpg", "y/x.jpg")][0] == "x.jpg"
    assert looked == ["x.jpg", "../x.jpg", "y/x.jpg"]


def test_an_image_that_was_mended_is_looked_at_again(tmp_path: Path) -> None:
    images, image = tmp_path / "images", tmp_path / "images" / "x.jpg"
    images.mkdir()
    image.write_bytes(b"half of a photo")
    looks = []

    def look(entry: Entry) -> list[PersonObservation]:
        looks.append(entry.imgname)
        whole = image.read_bytes() == b"all of it"
        return [
            PersonObservation(
                entry.imgname, 0, found=_found(True) if whole else None, reason="" if whole else "truncated"
            )
        ]

    perceive = CachedObserver(tmp_path / "kept", images, lambda: look)
    assert [perceive(Entry("x.jpg"))[0].reason for _ in range(2)] == ["truncated"] * 2
    image.write_bytes(b"all of it")
    later = (tmp_path / "kept" / "x.jpg.npz").stat().st_mtime + 10
    os.utime(image, (later, later))
    assert perceive(Entry("x.jpg"))[0].found is not None
    assert looks == ["x.jpg"] * 2
    os.utime(image, (0, 0))
    assert perceive(Entry("x.jpg"))[0].found is not None  # as it was kept
    assert looks == ["x.jpg"] * 2


@pytest.mark.parametrize("content", [b"", b"PK\3\4 nothing", b"\x93NUMPY"])
def test_a_damaged_finding_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jpg.npz").write_bytes(content)
    with pytest.raises(InputError, match="not the observations of an image"):
        CachedObserver(tmp_path, tmp_path, lambda: lambda _: [])(Entry("x.jpg"))


def test_findings_of_another_perception_or_source_are_refused(tmp_path: Path) -> None:
    def people(images: str, *persons: Person) -> CachedSource:
        return CachedSource(Source(Path(images), [Entry("a.jpg", persons or None)], "list"), tmp_path)

    people("/here").observer(SETTINGS)
    people("/here").observer(SETTINGS)
    people("/here").observer(replace(SETTINGS, regressor="other.safetensors", config=FitConfig()))
    for source, settings, said in (
        (people("/there"), SETTINGS, "images: /here, now /there"),
        (people("/here"), replace(SETTINGS, focal=500.0), "focal: absent, now 500.0"),
        (people("/here"), replace(SETTINGS, parsing_protocol="paper"), "parser"),
        (people("/here", Person(0)), SETTINGS, "people"),
    ):
        with pytest.raises(UsageError, match="caches other perception") as told:
            source.observer(settings)
        assert said in str(told.value)


def test_vertex_errors_need_no_camera(folder: Path, fits: dict[int, FitResult]) -> None:
    fitter = Fitter(open_body(), QUICK)
    bodies = [result.parameters() for result in fits.values()]
    found = vertex_errors(fitter, folder, list(fits), bodies)
    for seed, result, error in zip(fits, fits.values(), found, strict=True):
        case = read_case(folder, seed)
        true = torch.from_numpy(case.vertices)[None]
        pelvis = case.parameters().pose(open_body()).joints()[:, 0]
        ours, root = torch.from_numpy(result.vertices)[None], torch.from_numpy(result.pelvis)[None]
        assert error == pytest.approx(float(metrics.pve(ours, true, root, pelvis)), abs=0.01)
