"""Label maps: every file form comes back, refusals name what is wrong, other people are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsr_fit.errors import InputError
from dsr_fit.io.label_files import keep_own_labels, read_labels, write_labels
from dsr_fit.joints import KEYPOINT_INDEX, empty_keypoints
from dsr_fit.labels import COLOURS, OCCLUDER, UNKNOWN

# Every label there is, in a map that is wider than high.
LABELS = np.array([*range(20), OCCLUDER, UNKNOWN, 0, 13], dtype=np.uint8).reshape(4, 6)
SIZE = (6, 4)


@pytest.mark.parametrize("colour", [False, True])
def test_written_labels_come_back(tmp_path: Path, colour: bool) -> None:
    write_labels(tmp_path / "a.png", LABELS, colour=colour)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", SIZE), LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_graphonomy_colours(tmp_path: Path) -> None:
    """By hand, so that reader and writer can't share a mistake: face is blue, the left shoe yellow."""
    picture = np.zeros((2, 2, 4), dtype=np.uint8)
    picture[0, 0] = (0, 0, 255, 255)
    picture[1, 1] = (255, 255, 0, 7)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", (2, 2)), [[13, 0], [0, 18]])


def test_palette_files_are_read_by_index(tmp_path: Path) -> None:
    picture = Image.new("P", SIZE)
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.putdata(LABELS.ravel().tolist())
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", SIZE), LABELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int16])
def test_npy(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "a.npy", LABELS.astype(dtype))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.npy", SIZE), LABELS)


def test_another_size_says_both(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.png", LABELS)
    with pytest.raises(InputError, match="6 x 4 .* 4 x 6"):
        read_labels(tmp_path / "a.png", (4, 6))


def test_unknown_colour_is_named(tmp_path: Path) -> None:
    picture = COLOURS[LABELS.clip(0, 19)]
    picture[1, 2] = (1, 2, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="1,2,3"):
        read_labels(tmp_path / "a.png", SIZE)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="PNG"):
        read_labels(tmp_path / "a.jpg", SIZE)


@pytest.mark.parametrize("value", [20, 128, 252, 300, -1])
def test_values_that_are_no_labels(tmp_path: Path, value: int) -> None:
    labels = LABELS.astype(np.int32)
    labels[0, 0] = value
    np.save(tmp_path / "a.npy", labels)
    with pytest.raises(InputError, match=f"holds {value}, which is no label"):
        read_labels(tmp_path / "a.npy", SIZE)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        read_labels(tmp_path / "none.png", SIZE)
    with pytest.raises(InputError, match="no such"):
        read_labels(tmp_path / "none.npy", SIZE)
    (tmp_path / "a.npy").write_text("no array")
    with pytest.raises(InputError, match=r"a\.npy"):
        read_labels(tmp_path / "a.npy", SIZE)
    np.save(tmp_path / "b.npy", LABELS / 2)
    with pytest.raises(InputError, match="float64"):
        read_labels(tmp_path / "b.npy", SIZE)
    Image.fromarray(LABELS > 3).save(tmp_path / "c.png")  # a 1-bit mask
    with pytest.raises(InputError, match="mode 1"):
        read_labels(tmp_path / "c.png", SIZE)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_labels_beyond_the_margin_become_background(scale: int) -> None:
    """At a crop of 224 px labels up to 30 px outside the keypoints' box stay; at others, in proportion."""
    keypoints = empty_keypoints()
    keypoints[KEYPOINT_INDEX["Nose"]] = (100, 60, 0.9)
    keypoints[KEYPOINT_INDEX["LAnkle"]] = (140, 160, 0.9)
    keypoints[KEYPOINT_INDEX["RAnkle"]] = (20, 20, 0.2)  # too unsure to widen the box
    keypoints[:, :2] *= scale
    labels = np.full((224 * scale, 224 * scale), 5, dtype=np.uint8)
    labels[0, 0], labels[0, 1] = UNKNOWN, OCCLUDER
    kept = keep_own_labels(labels, keypoints, crop_side=224 * scale)
    expected = np.zeros_like(labels)
    expected[30 * scale : 190 * scale, 70 * scale : 170 * scale] = 5
    expected[0, 0], expected[0, 1] = UNKNOWN, OCCLUDER
    np.testing.assert_array_equal(kept, expected)


def test_atr_indices_become_our_labels(tmp_path: Path) -> None:
    """By hand: a skirt, the left shoe, the left arm, a bag, a belt, background; colours stay Graphonomy's."""
    np.save(tmp_path / "a.npy", np.array([[5, 9, 14, 16, 8, 0]]))
    labels = read_labels(tmp_path / "a.npy", (6, 1), "atr")
    np.testing.assert_array_equal(labels, [[12, 18, 14, OCCLUDER, UNKNOWN, 0]])
    np.save(tmp_path / "b.npy", np.array([[18]]))
    with pytest.raises(InputError, match="18, which is no label; 0 to 17"):
        read_labels(tmp_path / "b.npy", (1, 1), "atr")
    write_labels(tmp_path / "a.png", LABELS, colour=True)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", SIZE, "atr"), LABELS)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 6, 3), np.uint8), r"uint8 of shape \(4, 6, 3\); a label map is \(height, width\) integers"),
        (np.zeros((4, 6), bool), r"bool of shape \(4, 6\)"),
        (np.zeros(24, np.uint8), r"shape \(24,\)"),
        (np.full((4, 6), 2**63, np.uint64), "holds 9223372036854775808, which is no label"),
        (np.full((4, 6), np.nan, np.float32), "float32"),
        (np.array([[None]], dtype=object), "object of shape"),
    ],
)
def test_arrays_that_are_no_label_maps(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_labels(array, SIZE)


def test_wide_integers_are_indices_too() -> None:
    np.testing.assert_array_equal(read_labels(LABELS.astype(np.uint64), SIZE), LABELS)


def test_sixteen_bit_files_are_read_by_index(tmp_path: Path) -> None:
    """And not scaled, as a photo's grey is."""
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", SIZE), LABELS)
    Image.fromarray(LABELS.astype(np.uint16) * 257).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="holds 257, which is no label"):
        read_labels(tmp_path / "b.png", SIZE)


def test_pickled_objects_are_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="with pickled objects in it"):
        read_labels(tmp_path / "a.npy", SIZE)


def test_upper_case_suffixes_folders_and_empty_files(tmp_path: Path) -> None:
    with (tmp_path / "A.NPY").open("wb") as file:
        np.save(file, LABELS)
    np.testing.assert_array_equal(read_labels(tmp_path / "A.NPY", SIZE), LABELS)
    with pytest.raises(InputError, match="is a folder, not a label map"):
        read_labels(tmp_path, SIZE)
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png is empty"):
        read_labels(tmp_path / "empty.png", SIZE)
