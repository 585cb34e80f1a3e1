"""`--people`: everybody of a picture, in files that are all written or none; and the picture of a group."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import PERSON, QUICK, Capture, content, refused
from PIL import Image
from scenes import open_body, person

from dsr_fit.cli import main as cli
from dsr_fit.dataset.settings import Settings
from dsr_fit.io.images import read_image
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.view.group import COLOURS, LONGEST, Placed, draw_group

pytestmark = pytest.mark.usefixtures("nothing_is_set")
FOCAL, WIDTH, HEIGHT = 700.0, LONGEST, 480


@pytest.fixture(scope="module")
def keypoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenPose's file of three: the example's person, somebody of whom three points are seen, and the person moved aside."""
    (found,) = PersonDetector("fast").detect(read_image(PERSON)[0])
    seen = found.keypoints[:25].astype(float)
    hardly = np.where(np.arange(25)[:, None] < 4, seen, 0)
    people = [{"pose_keypoints_2d": one.ravel().tolist()} for one in (seen, hardly, seen + (60, 0, 0) * (seen > 0))]
    path = tmp_path_factory.mktemp("given") / "three_keypoints.json"
    path.write_text(json.dumps({"people": people}))
    return path


@pytest.fixture(scope="module")
def fitted(keypoints: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The mesh named by --out, and what was said."""
    out = tmp_path_factory.mktemp("people") / "mesh.obj"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        argv = [str(PERSON), "--out", str(out), "--people", "all", "--keypoints", str(keypoints), *QUICK]
        assert cli.main(argv) == 0
    return out, said.getvalue().splitlines()


def test_each_has_files_of_its_own_and_picture_and_report_are_of_all(fitted: tuple[Path, list[str]]) -> None:
    out, said = fitted
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "mesh.0.npz", "mesh.0.obj", "mesh.2.npz", "mesh.2.obj", "mesh.json", "mesh.png",
    ]  # fmt: skip
    assert [line.split(": ")[0] for line in said] == [f"{out.parent}/mesh.{number}.obj" for number in range(3)]
    assert "keypoint error" in said[0]
    assert "not fitted: person 1 of" in said[1]
    people = json.loads(out.with_suffix(".json").read_text())["people"]
    assert [one["person"] for one in people] == [0, 1, 2]
    assert people[0]["keypoints_source"] == "openpose"
    assert people[0]["agreement"] is None  # these keypoints are no finder's
    assert set(people[1]) == {"person", "reason"}
    assert "3 usable keypoints" in people[1]["reason"]
    with np.load(out.parent / "mesh.0.npz") as first, np.load(out.parent / "mesh.2.npz") as last:
        assert last["bbox_center"][0] - first["bbox_center"][0] == pytest.approx(60, abs=0.1)
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.height == LONGEST


def test_a_number_takes_the_first(keypoints: Path, tmp_path: Path) -> None:
    out = tmp_path / "mesh.ply"
    assert cli.main([str(PERSON), "--out", str(out), "--people", "1", "--keypoints", str(keypoints), *QUICK]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mesh.0.npz", "mesh.0.ply", "mesh.json", "mesh.png"]


def test_a_failure_while_writing_keeps_all_earlier_files(
    keypoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    from dsr_fit.fitting import saving

    for name in ("mesh.0.obj", "mesh.0.npz", "mesh.json", "mesh.png"):
        (tmp_path / name).write_text("earlier")
    before, write, calls = content(tmp_path), saving.write_mesh, []

    def full_at_the_second(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(saving, "write_mesh", full_at_the_second)
    out = tmp_path / "mesh.obj"
    argv = [str(PERSON), "--out", str(out), "--people", "all", "--keypoints", str(keypoints), *QUICK]
    status, line = refused(capfd, argv)
    assert status == 1
    assert "mesh.2.obj: can't write there (No space left on device)" in line
    assert content(tmp_path) == before


def test_nobody_who_can_be_fitted_is_an_error(keypoints: Path, tmp_path: Path, capfd: Capture) -> None:
    people = json.loads(keypoints.read_text())["people"][1:2] * 2
    (tmp_path / "two.json").write_text(json.dumps({"people": people}))
    argv = [str(PERSON), "--out", str(tmp_path / "mesh.obj"), "--people", "all", "--keypoints", f"{tmp_path}/two.json"]
    status, line = refused(capfd, argv)
    assert status == 1
    assert line.startswith(f"dsr-fit: {PERSON}: none of 2 found can be fitted; person 0 of")
    assert [path.name for path in tmp_path.iterdir()] == ["two.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--people", "0"), "--people 0: `one`, `all` or how many, such as 3, works"),
        (("--people", "some"), "--people some: `one`, `all` or how many"),
        (("--people", "all", "--person", "1"), "--people all: --person is about one person"),
        (("--people", "2", "--bbox", "1,2,30,40"), "--people 2: --bbox is about one person"),
        (("--people", "all", "--labels", str(PERSON)), "--people all: --labels is about one person"),
        (("--detector", "slow"), "--detector"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, options: tuple[str, ...], words: str, capfd: Capture
) -> None:
    assert cli.main([str(PERSON), "--out", str(tmp_path / "mesh.obj"), *options]) == 2
    assert words in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_input_is_not_overwritten_by_anybodys_files(tmp_path: Path, capfd: Capture) -> None:
    given = tmp_path / "mesh.3.npz"
    given.write_bytes(b"an earlier fit")
    argv = [str(PERSON), "--out", str(tmp_path / "mesh.obj"), "--people", "all", "--keypoints", str(given)]
    assert refused(capfd, argv)[1].endswith(f"would overwrite the input {given}; choose another name")


def test_the_detector_decides_what_measures_people_and_is_part_of_a_runs_identity() -> None:
    accurate, fast = Settings(), Settings(detector="fast")
    assert [one.perception().detector.name for one in (accurate, fast)] == ["blazepose-heavy", "blazepose-full"]  # type: ignore[union-attr]
    assert accurate.identity() != fast.identity()


# --- The picture ----------------------------------------------------------------------------------


def _placed(x: float, z: float, focal: float = FOCAL, center: tuple[float, float] = (WIDTH / 2, HEIGHT / 2)) -> Placed:
    one = person(0, spread=0)
    one = type(one)(one.global_orient, one.body_pose, one.betas, one.cam_t.new_tensor([[x, 0.0, z]]))
    posed = one.pose(open_body())
    return Placed(posed.vertices()[0].numpy(), posed.joints()[0, 0].numpy(), focal, center)


def _panels(*bodies: Placed) -> list[np.ndarray]:
    picture = draw_group(np.zeros((HEIGHT, WIDTH, 3), np.uint8), bodies, open_body().faces.numpy(), FOCAL)
    assert picture.shape == (HEIGHT, 2 * WIDTH + 2 * HEIGHT, 3)
    return np.split(picture.astype(float), [WIDTH, 2 * WIDTH, 2 * WIDTH + HEIGHT], axis=1)


def _shows(panel: np.ndarray, number: int) -> np.ndarray:
    """(h, w) bool: lit in the colour of that body, whatever the light."""
    light = panel.max(-1, keepdims=True)
    hue = np.array(COLOURS[number]) / max(COLOURS[number])
    return (np.abs(panel / np.maximum(light, 1) - hue).max(-1) < 0.03) & (light[..., 0] > 25)


def test_the_nearer_body_is_seen_whatever_the_order() -> None:
    near, far = _placed(0.1, 3.0), _placed(0.0, 4.0)
    first, last = _panels(near, far), _panels(far, near)
    for panels, front in ((first, 0), (last, 1)):
        assert (panels[0] == 0).all()
        seen, behind = _shows(panels[1], front), _shows(panels[1], 1 - front)
        assert seen.sum() > 3 * behind.sum() > 300
    assert (_shows(first[1], 0) == _shows(last[1], 1)).mean() > 0.999


def test_the_group_is_seen_from_above_with_the_near_below() -> None:
    *_, above = _panels(_placed(-0.5, 3.0), _placed(0.5, 5.0))
    (near_y, near_x), (far_y, far_x) = (np.argwhere(_shows(above, number)).mean(0) for number in (0, 1))
    assert near_y > far_y + HEIGHT / 3
    assert near_x < far_x - 20


def test_side_views_are_one_each_and_no_mirror_images() -> None:
    """Who faces the camera looks to the right when seen from the photo's left: the toes are right of the heels."""
    *_, sides, _ = _panels(_placed(-0.5, 3.0), _placed(0.5, 5.0))
    for number, start in ((0, 0), (1, HEIGHT // 2)):
        cell = _shows(sides[: HEIGHT // 2, start : start + HEIGHT // 2], number)
        rows = np.flatnonzero(cell.any(1))
        assert len(rows) > 0.8 * HEIGHT // 2
        feet, shins = cell[rows[-1] - 4 : rows[-1]], cell[rows[-1] - 40 : rows[-1] - 20]
        assert np.nonzero(feet)[1].mean() > np.nonzero(shins)[1].mean() + 2


def test_cameras_of_their_own_put_bodies_at_the_same_pixels() -> None:
    """SPIN's camera, ten times as far and with a focal length ten times as long, sees nearly the same picture."""
    body = _placed(0.0, 3.0)
    center = (WIDTH / 2 + 40.0, HEIGHT / 2)
    pelvis = np.array([-40 * 30.0 / (10 * FOCAL), body.pelvis[1], 30.0], np.float32)
    far = Placed(body.vertices - body.pelvis + pelvis, pelvis, 10 * FOCAL, center)
    np.testing.assert_allclose(far.under(FOCAL, (WIDTH / 2, HEIGHT / 2)), body.vertices, atol=0.03)
