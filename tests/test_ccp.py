"""The reader of the annotated photos: figures drawn with a known skeleton, invariants on the real maps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dsr_fit.errors import InputError
from dsr_fit.evaluate import ccp
from dsr_fit.joints import COCO_17_SLOTS, KEYPOINT_INDEX, empty_keypoints
from dsr_fit.labels import LABEL_INDEX, LEFT_RIGHT_PAIRS, OCCLUDER, UNKNOWN

# The data's `labels.txt`, in its order.
TAGS = [
    "null", "accessories", "bag", "belt", "blazer", "blouse", "bodysuit", "boots", "bra", "bracelet",
    "cape", "cardigan", "clogs", "coat", "dress", "earrings", "flats", "glasses", "gloves", "hair", "hat",
    "heels", "hoodie", "intimate", "jacket", "jeans", "jumper", "leggings", "loafers", "necklace",
    "panties", "pants", "pumps", "purse", "ring", "romper", "sandals", "scarf", "shirt", "shoes", "shorts",
    "skin", "skirt", "sneakers", "socks", "stockings", "suit", "sunglasses", "sweater", "sweatshirt",
    "swimwear", "t-shirt", "tie", "tights", "top", "vest", "wallet", "watch", "wedges",
]  # fmt: skip
SIZE = (840, 440)

# A person of 800 px who faces the camera: the left side is on the image's right.
STANDING: dict[str, tuple[float, float]] = {
    "Nose": (220, 90), "LEye": (232, 78), "REye": (208, 78), "LEar": (252, 82), "REar": (188, 82),
    "LShoulder": (290, 170), "RShoulder": (150, 170), "LElbow": (330, 290), "RElbow": (110, 290),
    "LWrist": (350, 390), "RWrist": (90, 390), "LHip": (265, 410), "RHip": (175, 410), "LKnee": (270, 590),
    "RKnee": (170, 590), "LAnkle": (270, 760), "RAnkle": (170, 760), "LHeel": (270, 775), "RHeel": (170, 775),
    "LBigToe": (285, 805), "RBigToe": (155, 805),
}  # fmt: skip
CROSSED = STANDING | {
    "LKnee": (235, 590), "RKnee": (205, 590), "LAnkle": (150, 760), "RAnkle": (290, 760),
    "LHeel": (150, 775), "RHeel": (290, 775), "LBigToe": (140, 805), "RBigToe": (300, 805),
}  # fmt: skip
HANDS_ON_HIPS = STANDING | {
    "LElbow": (390, 300), "RElbow": (50, 300), "LWrist": (285, 385), "RWrist": (155, 385),
}  # fmt: skip


def keypoints_of(joints: dict[str, tuple[float, float]]) -> np.ndarray:
    keypoints = empty_keypoints()
    for name, (x, y) in joints.items():
        keypoints[KEYPOINT_INDEX[name]] = (x, y, 1.0)
    return keypoints


class Figure:
    """A tag map, and beside it the label that each of its skin and shoe pixels should get."""

    def __init__(self, joints: dict[str, tuple[float, float]]) -> None:
        self.joints = joints
        self.tags = np.zeros(SIZE, dtype=np.uint8)
        self.truth = np.zeros(SIZE, dtype=np.uint8)

    def limb(self, tag: str, label: str, *names: str, width: int) -> Figure:
        points = np.array([self.joints[name] for name in names], dtype=np.int32)
        for image, value in ((self.tags, TAGS.index(tag)), (self.truth, LABEL_INDEX[label])):
            cv2.polylines(image, [points], False, (value,), width)
        return self

    def box(self, tag: str, label: str, left: int, top: int, right: int, bottom: int) -> Figure:
        self.tags[top:bottom, left:right] = TAGS.index(tag)
        self.truth[top:bottom, left:right] = LABEL_INDEX[label]
        return self

    def head(self) -> Figure:
        cv2.ellipse(self.tags, (220, 85), (42, 62), 0, 0, 360, (TAGS.index("skin"),), -1)
        cv2.ellipse(self.truth, (220, 85), (42, 62), 0, 0, 360, (LABEL_INDEX["face"],), -1)
        return self

    def agreement(self, keypoints: np.ndarray | None = None) -> float:
        """Share of the drawn pixels with the right label, judged on skin and shoes."""
        keypoints = keypoints_of(self.joints) if keypoints is None else keypoints
        labels = ccp.tags_to_labels(self.tags, TAGS, keypoints)
        judged = self.truth >= LABEL_INDEX["face"]
        return float((labels == self.truth)[judged].mean())


def bare_limbs(joints: dict[str, tuple[float, float]]) -> Figure:
    """A short dress: bare head, arms and legs, and shoes. The right leg is in front of the left one."""
    figure = Figure(joints).head()
    for side, name in (("L", "left"), ("R", "right")):
        figure.limb("skin", f"{name}Leg", f"{side}Hip", f"{side}Knee", f"{side}Ankle", width=44)
        figure.limb("shoes", f"{name}Shoe", f"{side}Heel", f"{side}BigToe", width=40)
    figure.box("dress", "dress", 155, 160, 285, 480)
    for side, name in (("L", "left"), ("R", "right")):
        figure.limb("skin", f"{name}Arm", f"{side}Shoulder", f"{side}Elbow", f"{side}Wrist", width=30)
    return figure


def test_the_table_covers_exactly_the_tags() -> None:
    assert len(TAGS) == 59
    assert set(ccp.TAG_TABLE) == set(TAGS)


def test_tags_in_these_tests_are_those_of_the_data(shared_dir: Path) -> None:
    lines = (shared_dir / "data/ccp/labels.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.strip()] == TAGS


def test_unknown_tag_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="spacesuit"):
        ccp.tags_to_labels(np.ones((4, 4), np.uint8), ["null", "spacesuit"], empty_keypoints())


# A drawn limb's ends are round and overlap their neighbours: 3 % of the pixels may go to either.
@pytest.mark.parametrize(("joints", "least"), [(STANDING, 0.97), (HANDS_ON_HIPS, 0.97), (CROSSED, 0.93)])
def test_limbs_and_shoes_get_their_sides(joints: dict[str, tuple[float, float]], least: float) -> None:
    """Crossed shins overlap for some 40 px of their length: keypoints can't tell which is in front."""
    assert bare_limbs(joints).agreement() > least


def test_facing_away_swaps_the_sides() -> None:
    away = {("R" if n[0] == "L" else "L") + n[1:] if n[0] in "LR" else n: p for n, p in STANDING.items()}
    assert bare_limbs(away).agreement() > 0.97


def test_facing_away_with_shoulders_alone() -> None:
    away = {("R" if n[0] == "L" else "L") + n[1:] if n[0] in "LR" else n: p for n, p in STANDING.items()}
    keypoints = keypoints_of({name: away[name] for name in ("LShoulder", "RShoulder")})
    assert bare_limbs(away).agreement(keypoints) > 0.95


def test_shoes_that_touch_are_cut_between_the_feet() -> None:
    joints = STANDING | {
        "LHeel": (245, 770),
        "LBigToe": (245, 800),
        "RHeel": (195, 770),
        "RBigToe": (195, 800),
    }
    joints |= {"LAnkle": (245, 750), "RAnkle": (195, 750)}
    figure = Figure(joints).head().box("skirt", "skirt", 150, 300, 290, 750)
    figure.box("shoes", "rightShoe", 170, 750, 220, 820).box("shoes", "leftShoe", 220, 750, 270, 820)
    assert figure.agreement() > 0.97


@pytest.mark.parametrize("apart", [0, 12])
def test_two_shoes_are_never_the_same_foots(apart: int) -> None:
    """The detector puts both feet a shoe's width to one side; the outline still shows two shoes."""
    feet = {"Ankle": 750, "Heel": 770, "BigToe": 800}
    joints = STANDING | {"L" + name: (300.0, y) for name, y in feet.items()}
    joints |= {"R" + name: (235.0, y) for name, y in feet.items()}
    figure = Figure(joints).head().box("skirt", "skirt", 150, 300, 290, 750)
    for left, label in ((165, "rightShoe"), (165 + 50 + apart, "leftShoe")):
        figure.box("shoes", label, left, 750, left + 50, 820)
    if apart == 0:  # they touch at the heels only
        figure.box("null", "background", 208, 760, 222, 820)
    assert figure.agreement() > 0.97


def test_tags_that_cannot_be_there_are_mended() -> None:
    figure = Figure(STANDING).head().box("jeans", "upperclothes", 150, 165, 290, 330)
    figure.box("stockings", "upperclothes", 320, 200, 340, 300).box("jeans", "pants", 160, 400, 280, 790)
    figure.box("sunglasses", "upperclothes", 210, 240, 230, 250).box("hat", "background", 200, 500, 240, 560)
    labels = ccp.tags_to_labels(figure.tags, TAGS, keypoints_of(STANDING))
    for (y, x), label in (((200, 200), "upperclothes"), ((250, 330), "upperclothes"), ((700, 220), "pants"),
                          ((245, 220), "upperclothes")):  # fmt: skip
        assert labels[y, x] == LABEL_INDEX[label]
    assert labels[530, 220] == OCCLUDER


def test_skin_of_a_second_person_stay_unlabelled() -> None:
    figure = bare_limbs({name: (x * 0.5, y) for name, (x, y) in STANDING.items()})
    figure.box("skin", "background", 345, 60, 365, 100)
    labels = ccp.tags_to_labels(figure.tags, TAGS, keypoints_of(figure.joints))
    assert (labels[60:100, 345:365] == UNKNOWN).all()


def test_mirroring_the_figure_mirrors_the_labels() -> None:
    figure = bare_limbs(HANDS_ON_HIPS | {"LWrist": (300, 250)})
    labels = ccp.tags_to_labels(figure.tags, TAGS, keypoints_of(figure.joints))
    width = SIZE[1]
    flipped = {
        ("R" if n[0] == "L" else "L") + n[1:] if n[0] in "LR" else n: (width - x, y)
        for n, (x, y) in figure.joints.items()
    }
    mirrored = ccp.tags_to_labels(np.ascontiguousarray(figure.tags[:, ::-1]), TAGS, keypoints_of(flipped))
    swap = np.arange(256, dtype=np.uint8)
    for left, right in LEFT_RIGHT_PAIRS:
        swap[[left, right]] = right, left
    # Equal but for ties on the axis and for the chamfer distance's rounding.
    assert (swap[mirrored[:, ::-1]] == labels).mean() > 0.999


def test_no_keypoints_at_all() -> None:
    assert bare_limbs(STANDING).agreement(empty_keypoints()) > 0.95


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("missing", [("Elbow", "Wrist"), ("Knee", "Ankle", "Heel", "BigToe"), ("Wrist", "Heel")])
def test_missing_keypoints_follow_the_others(side: str, missing: tuple[str, ...]) -> None:
    figure = bare_limbs(STANDING)
    keypoints = keypoints_of(STANDING)
    keypoints[[KEYPOINT_INDEX[side + name] for name in missing]] = 0
    assert figure.agreement(keypoints) > 0.95


def test_coco_slots_serve_as_well_as_the_first_block() -> None:
    names = (
        "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist",
        "RWrist", "LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle",
    )  # fmt: skip
    keypoints = empty_keypoints()
    for name, slot in zip(names, COCO_17_SLOTS, strict=True):
        keypoints[slot] = (*CROSSED[name], 1.0)
    assert bare_limbs(CROSSED).agreement(keypoints) > 0.9


def test_keypoints_of_somebody_else_are_set_aside() -> None:
    figure = bare_limbs(STANDING)
    elsewhere = keypoints_of({name: (x / 8 + 5, y / 8 + 700) for name, (x, y) in STANDING.items()})
    assert figure.agreement(elsewhere) == figure.agreement(empty_keypoints())


def test_hand_in_front_of_a_covered_thigh_is_a_hand() -> None:
    """The thigh's bone runs right through the hand, the wrist's keypoint is beside it, as they often are."""
    joints = STANDING | {"LElbow": (330, 300), "LWrist": (305, 400)}
    figure = Figure(joints).head().box("skirt", "skirt", 140, 380, 300, 780)
    figure.box("skin", "leftArm", 250, 440, 285, 490)
    labels = ccp.tags_to_labels(figure.tags, TAGS, keypoints_of(joints))
    assert set(np.unique(labels[440:490, 250:285])) == {LABEL_INDEX["leftArm"]}


def test_neckline_is_face_and_a_bare_belly_has_no_label() -> None:
    figure = Figure(STANDING).head().box("top", "upperclothes", 150, 165, 290, 330)
    figure.box("skin", "face", 195, 140, 245, 215).box("skin", "face", 165, 330, 275, 400)
    figure.box("jeans", "pants", 160, 400, 280, 790)
    labels = ccp.tags_to_labels(figure.tags, TAGS, keypoints_of(STANDING))
    assert set(np.unique(labels[140:215, 195:245])) == {LABEL_INDEX["face"]}
    assert (labels[330:400, 165:275] == UNKNOWN).mean() > 0.95


def test_jewellery_takes_what_it_lies_on() -> None:
    figure = bare_limbs(STANDING)
    for y, x, tag in (
        (340, 340, "watch"),
        (340, 100, "accessories"),
        (300, 220, "necklace"),
        (460, 220, "belt"),
    ):
        figure.tags[y - 8 : y + 8, x - 6 : x + 6] = TAGS.index(tag)
    labels = ccp.tags_to_labels(figure.tags, TAGS, keypoints_of(STANDING))
    found = [labels[y, x] for y, x in ((340, 340), (340, 100), (300, 220), (460, 220))]
    assert found == [LABEL_INDEX[name] for name in ("leftArm", "rightArm", "dress", "dress")]


@pytest.mark.parametrize("tag", ["bag", "purse", "wallet", "accessories"])
def test_bag_hides_the_body_only_where_it_is_in_front(tag: str) -> None:
    figure = bare_limbs(STANDING)
    figure.tags[430:560, 190:430] = TAGS.index(tag)
    labels = ccp.tags_to_labels(figure.tags, TAGS, keypoints_of(STANDING))
    assert (labels[430:560, 200:290] == OCCLUDER).all()
    assert (labels[430:560, 400:430] == 0).all()


def test_suit_is_cut_below_the_hips_unless_trousers_are_tagged() -> None:
    alone = Figure(STANDING).head().box("suit", "coat", 140, 160, 300, 780)
    labels = ccp.tags_to_labels(alone.tags, TAGS, keypoints_of(STANDING))
    assert (labels[180, 220], labels[700, 220]) == (LABEL_INDEX["coat"], LABEL_INDEX["pants"])
    alone.box("pants", "pants", 140, 500, 300, 780)
    labels = ccp.tags_to_labels(alone.tags, TAGS, keypoints_of(STANDING))
    assert (labels[490, 220], labels[700, 220]) == (LABEL_INDEX["coat"], LABEL_INDEX["pants"])


def test_empty_map_stays_empty() -> None:
    assert not ccp.tags_to_labels(np.zeros(SIZE, np.uint8), TAGS, empty_keypoints()).any()


def test_unknown_split_and_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train, tune, val"):
        ccp.photo_numbers(tmp_path, "test")
    with pytest.raises(InputError, match=str(tmp_path)):
        ccp.photo_numbers(tmp_path, "val")


def test_splits_go_by_the_last_digit_and_skip_empty_maps(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for number in range(20):
        tags = np.full((4, 4), number != 16, dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "labels" / f"{number:04d}.png"), tags)
    splits = [ccp.photo_numbers(tmp_path, split) for split in ccp.SPLITS]
    assert splits[1:] == [["0005", "0015"], ["0006"]]
    assert sorted(sum(splits, [])) == [f"{number:04d}" for number in range(20) if number != 16]


def test_splits_of_the_data_are_disjoint_and_complete(shared_dir: Path) -> None:
    folder = shared_dir / "data/ccp"
    splits = [ccp.photo_numbers(folder, split, annotated=False) for split in ccp.SPLITS]
    assert sorted(sum(splits, [])) == sorted(path.stem for path in (folder / "photos").glob("*.jpg"))
    assert "0536" in splits[2]
    assert "0536" not in ccp.photo_numbers(folder, "val")
    assert all(ccp.photo_path(folder, number).is_file() for number in splits[2])


def test_real_maps_keep_skin_skin_and_clothes_clothes(shared_dir: Path) -> None:
    """Without keypoints too: what holds for every photo whatever the detector says."""
    folder = shared_dir / "data/ccp"
    skin_labels = [LABEL_INDEX[n] for n in ("face", "leftArm", "rightArm", "leftLeg", "rightLeg")] + [UNKNOWN]
    carried = [TAGS.index(tag) for tag in ("null", "bag", "purse", "wallet", "accessories", "hat")]
    for number in ccp.photo_numbers(folder, "train")[::100]:
        tags = cv2.imread(str(folder / "labels" / f"{number}.png"), cv2.IMREAD_UNCHANGED)
        assert tags is not None
        labels = ccp.read_annotation(folder, number, empty_keypoints())
        assert labels.shape == tags.shape
        assert labels.dtype == np.uint8
        assert ((labels < 20) | (labels >= OCCLUDER)).all()
        assert (labels[tags == 0] == 0).all()
        assert (labels[~np.isin(tags, carried)] != 0).all()
        assert np.isin(labels[tags == TAGS.index("skin")], skin_labels).all()
        assert not np.isin(labels[tags == TAGS.index("dress")], skin_labels).any()
