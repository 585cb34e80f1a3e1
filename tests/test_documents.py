"""The pages that people write scripts against say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import figures
import numpy as np
import pytest
from scenes import open_body

from dsr_fit.camera import CROP_MARGIN, SPIN_FOCAL, SPIN_RESOLUTION
from dsr_fit.dataset.schema import COLUMNS, VERSION
from dsr_fit.joints import BODY_25, COCO_17_SLOTS, KEYPOINTS_49, MEDIAPIPE_33_TO_SLOT
from dsr_fit.labels import (
    BOX_MARGIN_AT_224,
    LABEL_SETS,
    LABELS,
    MC_LABELS,
    MIN_PIXELS_AT_224,
    OCCLUDER,
    UNKNOWN,
)

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("priors/**/*.md")])
CONVENTIONS = (ROOT / "docs" / "conventions.md").read_text()


def test_the_49_slots_are_listed_in_order() -> None:
    listed = re.findall(r"^\| \d+\.\.\d+ \| (.+) \|$", CONVENTIONS, re.MULTILINE)
    names = [name for row in listed for name in row.split(", ") if not name.startswith("BODY_25's")]
    assert names[:49] == list(KEYPOINTS_49)


def test_coco_and_mediapipe_slots_are_right() -> None:
    (coco,) = re.findall(r"^\| COCO 17 \| ([\d, ]+) \|$", CONVENTIONS, re.MULTILINE)
    assert tuple(int(slot) for slot in coco.split(",")) == COCO_17_SLOTS
    assert f"the {len(MEDIAPIPE_33_TO_SLOT)} points that BODY_25 has by name" in CONVENTIONS


def test_labels_and_their_sets_are_right() -> None:
    cells = {match[1]: match[0] for match in re.findall(r"\| (\d+) ([A-Za-z]+)(?= \|)", CONVENTIONS)}
    assert {name: int(number) for name, number in cells.items()} == {n: i for i, n in enumerate(LABELS)}
    assert f"**{OCCLUDER}** is an occluder" in CONVENTIONS
    assert f"**{UNKNOWN}** is unknown" in CONVENTIONS
    (minimal,) = re.findall(r"labels\*\* of DSR-MC: (.+)\.", CONVENTIONS)
    assert minimal.split(", ") == [LABELS[label] for label in MC_LABELS]
    for name, label_set in LABEL_SETS.items():
        (row,) = re.findall(rf"^\| `{name}`.*\| (.+) \|$", CONVENTIONS, re.MULTILINE)
        classes = [text.strip("{}") for text in re.findall(r"\{[^}]+\}", row)]
        named = [tuple(int(label) for label in text.split(",")) for text in classes if text[0].isdigit()]
        assert named == [members for members in label_set.classes.values()][: len(named)]
        rest = set(range(20)) - {label for members in named for label in members}
        assert set().union(*list(label_set.classes.values())[len(named) :]) == rest


def test_numbers_of_the_cameras_and_rules_are_right() -> None:
    assert f"fewer than {MIN_PIXELS_AT_224} px of the {SPIN_RESOLUTION} px crop" in CONVENTIONS
    assert f"farther than {BOX_MARGIN_AT_224} px (of {SPIN_RESOLUTION})" in CONVENTIONS
    assert f"f = {SPIN_FOCAL:.0f} px on the {SPIN_RESOLUTION} px crop" in CONVENTIONS
    assert f"its side {CROP_MARGIN}\ntimes" in CONVENTIONS


def test_the_open_bodys_second_block_is_not_shifted_to_the_detector() -> None:
    """A knee of the first block lies where the detector marks it, that of the second in the joint."""
    skeleton = open_body().skeleton
    at_rest = skeleton.keypoint_moments[..., :3].sum(1).numpy()
    shift = at_rest[BODY_25.index("LKnee")] - at_rest[KEYPOINTS_49.index("Left Knee")]
    with np.load(ROOT / "priors" / "open_body" / "body.npz") as body:
        expected = body["keypoint_offsets"][BODY_25.index("LKnee")]
    assert np.linalg.norm(expected) > 0.005
    np.testing.assert_allclose(shift, expected, atol=2e-3)  # the regressor reaches the offset within 2 mm


def test_the_columns_of_a_shard_are_listed_in_order() -> None:
    page = (ROOT / "docs" / "shards.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| ([\w (),]+) \| (.+) \|$", page, re.MULTILINE)
    shapes = [f" {column.shape}" if column.shape else "" for column in COLUMNS]
    kinds = [
        f"{column.kind}".replace("float", "float32") + shape for column, shape in zip(COLUMNS, shapes, strict=True)
    ]
    assert listed == [(column.name, kind, column.what) for column, kind in zip(COLUMNS, kinds, strict=True)]
    assert f"`format` (of the columns' meaning, {VERSION})" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    folders = "dsr_fit|tools|tests|configs|docs|priors|benchmarks|experiments"
    for name in re.findall(rf"`((?:{folders})/[\w/.]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", figures.PAGES)
def test_figures_are_those_of_the_committed_results(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- figures: " in text
    assert figures.filled(text) == text
