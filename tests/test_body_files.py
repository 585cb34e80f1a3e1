"""Body files are read whole, agree with smplx, and can run nothing."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_smpl import chumpy_stand_in, synthetic_smpl, write_npz, write_pickle

from dsr_fit.body.files import load_body
from dsr_fit.errors import InputError
from dsr_fit.joints import SMPLX54_TO_49


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return synthetic_smpl()


@pytest.fixture(scope="module")
def smpl_npz(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("smpl") / "smpl.npz", arrays)


def _random_pose(batch: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"global_orient": 3, "body_pose": 69, "betas": 10, "cam_t": 3}
    return {name: 0.5 * torch.randn(batch, size, generator=generator) for name, size in sizes.items()}


def test_vertices_and_joints_agree_with_smplx(arrays: dict[str, np.ndarray], smpl_npz: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import smplx
        from smplx.utils import Struct

        oracle = smplx.SMPL(model_path="", data_struct=Struct(**arrays), batch_size=3, create_transl=False)
    pose = _random_pose()
    expected = oracle(
        betas=pose["betas"], body_pose=pose["body_pose"], global_orient=pose["global_orient"], transl=pose["cam_t"]
    )
    posed = load_body(smpl_npz)(**pose)
    # Single precision over a chain of nine joints, metres.
    torch.testing.assert_close(posed.vertices(), expected.vertices, atol=5e-6, rtol=0)
    torch.testing.assert_close(posed.joints(), expected.joints[:, :24], atol=5e-6, rtol=0)
    known = [slot for slot, index in enumerate(SMPLX54_TO_49) if index < 45]
    index = [SMPLX54_TO_49[slot] for slot in known]
    torch.testing.assert_close(posed.keypoints[:, known], expected.joints[:, index], atol=5e-6, rtol=0)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_pickle_equals_npz(arrays: dict[str, np.ndarray], smpl_npz: Path, tmp_path: Path, protocol: int) -> None:
    pickled = load_body(write_pickle(tmp_path / "smpl.pkl", arrays, protocol))
    plain = load_body(smpl_npz)
    pose = _random_pose(1)
    torch.testing.assert_close(pickled(**pose).vertices(), plain(**pose).vertices(), atol=0, rtol=0)
    torch.testing.assert_close(pickled(**pose).keypoints, plain(**pose).keypoints, atol=0, rtol=0)


def test_extra_regressor_fills_the_nine_missing_keypoints(smpl_npz: Path, tmp_path: Path) -> None:
    nine = np.zeros((9, 6890))
    nine[np.arange(9), 100 * np.arange(9)] = 1
    np.save(tmp_path / "extra.npy", nine)
    bare, full = load_body(smpl_npz), load_body(smpl_npz, tmp_path / "extra.npy")
    assert bare.skeleton.keypoint_valid.sum() == 40
    assert bool(full.skeleton.keypoint_valid.all())
    posed = full(**_random_pose(1))
    slot = SMPLX54_TO_49.index(47)  # the third of the nine
    torch.testing.assert_close(posed.keypoints[0, slot], posed.vertices()[0, 200], atol=5e-6, rtol=0)


class _Attack:
    def __reduce__(self) -> tuple:
        return os.system, ("touch /tmp/dsr-fit-was-here",)


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (_Attack(), "posix.system"),
        (np.load, "numpy.load"),
        (Path("x"), "pathlib"),
        (eval, "builtins.eval"),
    ],
)
def test_a_pickle_that_wants_more_is_refused_by_name(tmp_path: Path, payload: object, name: str) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"v_template": payload}, protocol=2))
    with pytest.raises(InputError, match=name.replace("builtins", "(builtins|__builtin__)")):
        load_body(path)
    assert not Path("/tmp/dsr-fit-was-here").exists()


def test_an_array_that_holds_itself_is_one_line(tmp_path: Path) -> None:
    with chumpy_stand_in() as chumpy_array:
        endless = chumpy_array(np.zeros(3))
        endless.x = endless
        (tmp_path / "endless.pkl").write_bytes(pickle.dumps({"v_template": endless}))
    with pytest.raises(InputError, match="an array of the file can't be read"):
        load_body(tmp_path / "endless.pkl")


@pytest.mark.parametrize("content", [b"", b"no pickle at all", pickle.dumps([1, 2])])
def test_what_is_no_body_pickle_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_body(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["weights", "J_regressor", "f"])
def test_missing_keys_are_named(arrays: dict[str, np.ndarray], tmp_path: Path, key: str) -> None:
    path = write_npz(tmp_path / "part.npz", {name: value for name, value in arrays.items() if name != key})
    with pytest.raises(InputError, match=f"lacks {key}"):
        load_body(path)


def test_wrong_shapes_and_indices_are_named(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    faces = arrays["f"].copy()
    faces[0, 0] = 6890
    with pytest.raises(InputError, match="`f`"):
        load_body(write_npz(tmp_path / "faces.npz", {**arrays, "f": faces}))
    with pytest.raises(InputError, match="`weights` has shape"):
        load_body(write_npz(tmp_path / "weights.npz", {**arrays, "weights": arrays["weights"][:, :23]}))


@pytest.mark.parametrize("name", ["v_template", "J_regressor"])
@pytest.mark.parametrize("wrong", [np.nan, "text"])
def test_arrays_of_anything_but_finite_numbers_are_named(
    arrays: dict[str, np.ndarray], tmp_path: Path, name: str, wrong: float | str
) -> None:
    spoilt = arrays[name].astype(object if isinstance(wrong, str) else float)
    spoilt.flat[0] = wrong
    spoilt = spoilt.astype(str) if isinstance(wrong, str) else spoilt
    with pytest.raises(InputError, match=f"`{name}` holds values that are not finite numbers"):
        load_body(write_npz(tmp_path / "spoilt.npz", {**arrays, name: spoilt}))


@pytest.mark.parametrize(("part", "wrong"), [("row", [24]), ("col", [-1]), ("col", [6890]), ("val", [0.5, 0.5])])
def test_triplets_beyond_the_matrix_are_named(
    arrays: dict[str, np.ndarray], tmp_path: Path, part: str, wrong: list
) -> None:
    triplets = {"row": np.array([0]), "col": np.array([0]), "val": np.array([1.0]), part: np.array(wrong)}
    given = {f"J_regressor_{name}": value for name, value in triplets.items()}
    with pytest.raises(InputError, match="`J_regressor_row`, `_col` and `_val` are no 24 x 6890"):
        load_body(write_npz(tmp_path / "a.npz", {**arrays, **given}))


def test_no_such_body_says_what_works(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give an SMPL .pkl or .npz"):
        load_body(tmp_path / "nothing.pkl")
