"""Reader of Clothing Co-Parsing (Yang, Luo, Lin, CVPR 2014): 59 clothing tags to the 20 Graphonomy labels.

The tags know neither left nor right, and one tag `skin` covers face, arms and legs. Both are recovered from
the person's keypoints: every skin or shoe pixel goes to the body part whose bone is nearest in units of that
part's thickness. `docs/ccp_labels.md` holds the table and the reasons of its doubtful rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dsr_fit.errors import InputError
from dsr_fit.joints import COCO_17_SLOTS, KEYPOINT_INDEX
from dsr_fit.labels import LABEL_INDEX, OCCLUDER, UNKNOWN

SPLITS: tuple[str, ...] = ("train", "tune", "val")
_SPLIT_OF_DIGIT = {"6": "val", "5": "tune"}

# What the tags become that are no label: split by keypoints, or settled by what is around them.
_RULES = {"skin": 200, "shoe": 201, "suit": 202, "worn": 203, "carried": 204, "extra": 205}
_SKIN, _SHOE, _SUIT, _WORN, _CARRIED, _EXTRA = _RULES.values()

_TAGS_OF: dict[str, str] = {
    "background": "null",
    "hat": "hat",
    "hair": "hair",
    "glove": "gloves",
    "sunglasses": "sunglasses glasses",
    "upperclothes": "blouse bra hoodie intimate jumper shirt sweater sweatshirt swimwear t-shirt tie top vest",
    "dress": "dress",
    "coat": "blazer cape cardigan coat jacket",
    "socks": "socks stockings tights",
    "pants": "jeans leggings panties pants shorts",
    "jumpsuits": "bodysuit romper",
    "scarf": "scarf",
    "skirt": "skirt",
    "skin": "skin",
    "shoe": "boots clogs flats heels loafers pumps sandals shoes sneakers wedges",
    "suit": "suit",
    "worn": "belt bracelet earrings necklace ring watch",
    "carried": "bag purse wallet",
    "extra": "accessories",
}

TAG_TABLE: dict[str, str] = {tag: meaning for meaning, tags in _TAGS_OF.items() for tag in tags.split()}
"""Each of the 59 tags: the Graphonomy label it becomes, or the rule that settles it."""


def photo_path(folder: Path, number: str) -> Path:
    """The photo's file; `folder` holds `photos`, `labels` and `labels.txt`."""
    return folder / "photos" / f"{number}.jpg"


def photo_numbers(folder: Path, split: str, annotated: bool = True) -> list[str]:
    """The numbers ("0006", ...) of a split, sorted; with `annotated` those whose label map shows a person.

    Raises:
        InputError: unknown split, or no photo in the folder.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    pattern = "labels/*.png" if annotated else "photos/*.jpg"
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"no {pattern} in {folder}; it should be the unpacked Clothing Co-Parsing data")
    paths = [path for path in paths if _SPLIT_OF_DIGIT.get(path.stem[-1], "train") == split]
    return [path.stem for path in paths if not annotated or _read_tags(path).any()]


def read_annotation(folder: Path, number: str, keypoints: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels of a photo as `tags_to_labels` makes them; `keypoints` (49, 3) in its pixels."""
    names = [line.split()[1] for line in (folder / "labels.txt").read_text().splitlines() if line.strip()]
    return tags_to_labels(_read_tags(folder / "labels" / f"{number}.png"), names, keypoints)


def tags_to_labels(tags: np.ndarray, tag_names: Sequence[str], keypoints: np.ndarray) -> np.ndarray:
    """Turn a map of clothing tags into one of Graphonomy labels.

    Args:
        tags: (H, W) uint8 index into `tag_names`.
        tag_names: names as in the data's `labels.txt`.
        keypoints: (49, 3) x, y in pixels and confidence; points of confidence 0 are guessed from the others,
            and all of them from the person's box when none is there (standing upright, seen from the front).

    Returns:
        (H, W) uint8: 0..19 of `labels.LABELS`; 254 for carried things in front of the body; 255 for skin that
        has no label (a bare belly) or is another person's.

    Raises:
        InputError: a tag that the table lacks.
    """
    missing = sorted(set(tag_names) - TAG_TABLE.keys())
    if missing:
        raise InputError(f"unknown clothing tags: {', '.join(missing)}")
    lookup = np.zeros(256, dtype=np.uint8)
    codes = _RULES | LABEL_INDEX
    lookup[: len(tag_names)] = [codes[TAG_TABLE[name]] for name in tag_names]
    labels = lookup[tags]
    if not labels.any():
        return labels

    top, bottom, left, right = _bounds(labels)
    person = labels[top:bottom, left:right]  # a view: what follows edits `labels`
    points, unit = _skeleton(keypoints, (left, top, right, bottom))
    points = {name: point - (left, top) for name, point in points.items()}
    bones = _bones(points, unit)
    _mend_misplaced(person, points)
    _settle_extras(person, points, unit)
    _split_suit(person, points, unit)
    _split_skin(person, bones, unit)
    _split_shoes(person, bones, unit)
    _settle_carried(person, bones)
    _settle_worn(person)
    return labels


# ---- the skeleton
# A person who stands facing the camera, in heights of the person: x to the image's right, y down from the
# crown. Each missing point follows the one it hangs on; a root follows the person's box.
_TEMPLATE: dict[str, tuple[str | None, float, float]] = {
    "Neck": (None, 0.0, 0.18), "MidHip": (None, 0.0, 0.50),
    "Nose": ("Neck", 0.0, 0.09), "LEye": ("Nose", 0.02, 0.075), "REye": ("Nose", -0.02, 0.075),
    "LEar": ("Nose", 0.045, 0.08), "REar": ("Nose", -0.045, 0.08),
    "LShoulder": ("Neck", 0.10, 0.19), "RShoulder": ("Neck", -0.10, 0.19),
    "LElbow": ("LShoulder", 0.13, 0.36), "RElbow": ("RShoulder", -0.13, 0.36),
    "LWrist": ("LElbow", 0.15, 0.49), "RWrist": ("RElbow", -0.15, 0.49),
    "LHip": ("MidHip", 0.06, 0.50), "RHip": ("MidHip", -0.06, 0.50),
    "LKnee": ("LHip", 0.06, 0.72), "RKnee": ("RHip", -0.06, 0.72),
    "LAnkle": ("LKnee", 0.06, 0.93), "RAnkle": ("RKnee", -0.06, 0.93),
    "LHeel": ("LAnkle", 0.06, 0.96), "RHeel": ("RAnkle", -0.06, 0.96),
    "LBigToe": ("LAnkle", 0.08, 0.99), "RBigToe": ("RAnkle", -0.08, 0.99),
}  # fmt: skip

# The same joints in the second block of the 49 slots, where COCO's points are.
_COCO_17 = (
    "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist",
    "LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle",
)  # fmt: skip
_SECOND_SLOT: dict[str, int] = dict(zip(_COCO_17, COCO_17_SLOTS, strict=True))


def _skeleton(keypoints: np.ndarray, box: tuple[int, int, int, int]) -> tuple[dict[str, np.ndarray], float]:
    """Every joint of the template in pixels, and the torso's length in pixels."""
    seen: dict[str, np.ndarray] = {}
    for name in _TEMPLATE:
        for slot in (KEYPOINT_INDEX[name], _SECOND_SLOT.get(name)):
            if slot is not None and name not in seen and keypoints[slot, 2] > 0:
                seen[name] = keypoints[slot, :2].astype(np.float64)
    left, top, right, bottom = box
    inside = [left <= x < right and top <= y < bottom for x, y in seen.values()]
    if sum(inside) < 0.5 * len(inside):
        seen = {}  # the detector found somebody else
    for middle, sides in (("Neck", "Shoulder"), ("MidHip", "Hip")):
        pair = [seen[side + sides] for side in "LR" if side + sides in seen]
        if middle not in seen and len(pair) == 2:
            seen[middle] = np.mean(pair, axis=0)

    height = float(bottom - top)
    origin = np.array([(left + right) / 2, top])
    # Facing away, the left joints are on the image's left.
    pairs = [("LShoulder", "RShoulder"), ("LHip", "RHip")]
    leftward = sum(seen[a][0] - seen[b][0] for a, b in pairs if a in seen and b in seen)
    facing = -1.0 if leftward < 0 else 1.0
    points: dict[str, np.ndarray] = {}
    for name, (parent, x, y) in _TEMPLATE.items():
        place = origin + height * np.array([facing * x, y])
        if parent is not None:
            _, parent_x, parent_y = _TEMPLATE[parent]
            place = points[parent] + height * np.array([facing * (x - parent_x), y - parent_y])
        points[name] = seen.get(name, place)

    torso = float(np.linalg.norm(points["Neck"] - points["MidHip"]))
    shoulders = float(np.linalg.norm(points["LShoulder"] - points["RShoulder"]))
    return points, max(torso, 1.3 * shoulders, 0.15 * height)


class _Bone(NamedTuple):
    label: int
    start: np.ndarray
    end: np.ndarray
    radius: float
    handicap: float = 0.0
    """Radii added to every distance: for what arms and hands are usually in front of."""


def _bones(points: dict[str, np.ndarray], unit: float) -> list[_Bone]:
    """The body as capsules (radii in torso lengths), each with the label that bare skin there has."""
    face, belly = LABEL_INDEX["face"], UNKNOWN
    neck, hips = points["Neck"], points["MidHip"]
    head = (points["LEar"] + points["REar"]) / 2
    chest, navel = neck + 0.3 * (hips - neck), neck + 0.6 * (hips - neck)
    bones = [
        (face, head, points["Nose"], 0.17),
        (face, head, neck, 0.13),
        *((face, neck + 0.6 * (points[side + "Shoulder"] - neck), chest, 0.13, 0.5) for side in "LR"),
        (belly, navel, hips, 0.22, 1.0),
    ]
    for side, arm, leg in (("L", LABEL_INDEX["leftArm"], LABEL_INDEX["leftLeg"]),
                           ("R", LABEL_INDEX["rightArm"], LABEL_INDEX["rightLeg"])):  # fmt: skip
        shoulder, elbow, wrist, hip, knee, ankle, heel, toe = (
            points[side + name] for name in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Heel", "BigToe")
        )
        forearm = (wrist - elbow) / max(float(np.linalg.norm(wrist - elbow)), 1e-6)
        bones += [
            (arm, shoulder, elbow, 0.11),
            (arm, elbow, wrist, 0.08),
            (arm, wrist, wrist + 0.3 * unit * forearm, 0.11),
            (leg, hip, knee, 0.16, 0.6),
            (leg, knee, ankle, 0.11, 0.6),
            (leg, ankle, heel, 0.10, 0.6),
            (leg, ankle, toe, 0.10, 0.6),
        ]
    return [_Bone(label, start, end, radius * unit, *rest) for label, start, end, radius, *rest in bones]


def _distances(pixels: np.ndarray, bones: Sequence[_Bone]) -> np.ndarray:
    """(bones, N) float32 distance of pixels (N, 2) from each bone's axis, in the bone's radii."""
    table = [(*bone.start, *bone.end, bone.radius, bone.handicap) for bone in bones]
    start_x, start_y, end_x, end_y, radius, handicap = np.array(table, dtype=np.float32).T[:, :, None]
    span_x, span_y = end_x - start_x, end_y - start_y
    x, y = pixels.astype(np.float32).T
    x, y = x - start_x, y - start_y
    along = np.clip((x * span_x + y * span_y) / np.maximum(span_x**2 + span_y**2, 1e-6), 0, 1)
    return np.hypot(x - along * span_x, y - along * span_y) / radius + handicap


# ---- the rules. Thicknesses and areas are in torso lengths; all were set by looking at training photos.
_HIDDEN_PENALTY = 2.5  # radii that a part loses when none of its bones runs through the patch of skin
_HIDDEN_ARM_PENALTY = 1.5  # hands are small, and their keypoints often beside them
_SEEN_SHARES = (0.3, 0.6)  # of a bone: no more than a hand in front of it shows, as good as all of it
_HAND_AREA = 0.05  # a patch of skin up to this size is one part
_WORN_AREA = 0.025  # accessories up to this size are jewellery, larger ones are carried
_REACH = 1.3  # radii within which a carried thing is in front of the body
_SHOE_NECK = 0.04  # half the width up to which shoes that touch are told apart
_SUIT_HEM = 0.2  # how far below the hips a suit's jacket ends
_STRANGER = 5.0  # radii beyond which skin is somebody else's
_ARMS = (LABEL_INDEX["leftArm"], LABEL_INDEX["rightArm"])
_LOWER_GARMENTS = tuple(LABEL_INDEX[name] for name in ("pants", "skirt", "dress", "jumpsuits"))


def _split_skin(labels: np.ndarray, bones: Sequence[_Bone], unit: float) -> None:
    """Nearest part for each pixel; parts whose bones miss the patch (a thigh under a dress) are held back."""
    skin = labels == _SKIN
    if not skin.any():
        return
    joined = (skin | (labels == _WORN)).astype(np.uint8)  # a bracelet doesn't cut the hand off
    count, patches, stats, _ = cv2.connectedComponentsWithStats(joined)
    parts = sorted({bone.label for bone in bones})
    seen = _visible_shares(patches, count, bones, unit)
    y, x = np.nonzero(skin)
    patch = patches[y, x]
    distance = _distances(np.stack([x + 0.5, y + 0.5], axis=1), bones)
    cost = np.empty((len(parts), len(y)), dtype=np.float32)
    for row, part in enumerate(parts):
        members = [index for index, bone in enumerate(bones) if bone.label == part]
        hidden = 1 - np.interp(seen[members].max(axis=0), _SEEN_SHARES, (0, 1))
        penalty = _HIDDEN_ARM_PENALTY if part in _ARMS else _HIDDEN_PENALTY
        cost[row] = distance[members].min(axis=0) + penalty * hidden[patch]
    small = stats[:, cv2.CC_STAT_AREA] < _HAND_AREA * unit**2
    totals = np.array([np.bincount(patch, weights=row, minlength=count) for row in cost])
    choice = np.where(small[patch], totals.argmin(axis=0)[patch], cost.argmin(axis=0))
    stranger = distance.min(axis=0) > _STRANGER
    labels[y, x] = np.where(stranger, UNKNOWN, np.array(parts, dtype=np.uint8)[choice])


def _visible_shares(patches: np.ndarray, count: int, bones: Sequence[_Bone], unit: float) -> np.ndarray:
    """(bones, patches) share of each bone's length that lies on a patch, or a little beside it."""
    size = 2 * round(0.03 * unit) + 1
    grown = cv2.dilate(patches.astype(np.uint16), np.ones((size, size), np.uint8))
    steps = np.linspace(0.05, 0.95, 10)[:, None]
    height, width = grown.shape
    shares = np.zeros((len(bones), count))
    for row, bone in enumerate(bones):
        x, y = np.floor(bone.start + steps * (bone.end - bone.start)).astype(int).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        shares[row] = np.bincount(grown[y[inside], x[inside]], minlength=count) / len(steps)
    return shares


def _split_shoes(labels: np.ndarray, bones: Sequence[_Bone], unit: float) -> None:
    """Each shoe, a lobe of the outline, to the nearer foot; one lobe under both feet is cut between."""
    shoes = (labels == _SHOE).astype(np.uint8)
    y, x = np.nonzero(shoes)
    if len(y) == 0:
        return
    pixels = np.stack([x + 0.5, y + 0.5], axis=1)
    left, right = (
        _distances(pixels, [bone for bone in bones if bone.label == LABEL_INDEX[leg]][1:]).min(axis=0)
        for leg in ("leftLeg", "rightLeg")
    )  # without the thighs
    lean = left - right

    size = 2 * round(_SHOE_NECK * unit) + 1
    cores = cv2.erode(shoes, np.ones((size, size), np.uint8))
    pieces = cv2.connectedComponents(shoes)[1]
    cores |= shoes & ~np.isin(pieces, pieces[cores > 0])  # straps too thin to have a core
    lobe = _nearest(cores > 0, cv2.DIST_LABEL_CCOMP)[y, x]
    area = np.bincount(lobe)
    mean_lean = np.bincount(lobe, weights=lean) / np.maximum(area, 1)
    on_right = np.bincount(lobe, weights=lean > 0) / np.maximum(area, 1)
    both_feet = (np.minimum(on_right, 1 - on_right) > 0.25) & (area > 0.5 * area.sum())
    is_right = np.where(both_feet[lobe], lean, mean_lean[lobe]) > 0
    first, second = np.argsort(area)[::-1][:2]
    if min(is_right.mean(), 1 - is_right.mean()) < 0.1 and area[second] > 0.35 * area[first]:
        # Two shoes are never both the same foot's.
        is_right = mean_lean[lobe] > (mean_lean[first] + mean_lean[second]) / 2
    labels[y, x] = np.where(is_right, LABEL_INDEX["rightShoe"], LABEL_INDEX["leftShoe"])


def _mend_misplaced(labels: np.ndarray, points: dict[str, np.ndarray]) -> None:
    """Tags that can't be where they are: "jeans" on a denim jacket, "stockings" on a sleeve, and the like."""
    neck, hips = points["Neck"][1], points["MidHip"][1]

    def above(share: float) -> slice:  # of the way from the neck down to the hips
        return slice(0, max(int(neck + share * (hips - neck)), 0))

    torso = labels[above(1.0)]
    torso[np.isin(torso, (LABEL_INDEX["socks"], _SHOE))] = LABEL_INDEX["upperclothes"]
    lower = np.isin(labels, (LABEL_INDEX["pants"], LABEL_INDEX["skirt"]))
    if lower[above(0.45)].sum() > 0.15 * lower.sum():
        labels[above(0.9)][lower[above(0.9)]] = LABEL_INDEX["upperclothes"]
    for name, share, meaning in (("sunglasses", 0.0, _WORN), ("hat", 0.3, _CARRIED)):
        below = labels[above(share).stop :]
        below[below == LABEL_INDEX[name]] = meaning


def _split_suit(labels: np.ndarray, points: dict[str, np.ndarray], unit: float) -> None:
    """A suit is the jacket alone where trousers or a skirt have their own tag, else jacket and trousers."""
    suit = labels == _SUIT
    alone = np.isin(labels, _LOWER_GARMENTS).sum() < 0.2 * suit.sum()
    labels[suit] = LABEL_INDEX["coat"]
    hem = int(points["MidHip"][1] + _SUIT_HEM * unit)
    if alone and 0 < hem < len(labels):
        labels[hem:][suit[hem:]] = LABEL_INDEX["pants"]


def _settle_extras(labels: np.ndarray, points: dict[str, np.ndarray], unit: float) -> None:
    """Accessories: a hat on top of the head, small ones are jewellery, the others are carried."""
    count, patches, stats, centres = cv2.connectedComponentsWithStats((labels == _EXTRA).astype(np.uint8))
    head = (points["LEar"] + points["REar"]) / 2
    eyes = (points["LEye"][1] + points["REye"][1]) / 2
    meaning = np.zeros(count, dtype=np.uint8)
    for index in range(1, count):
        if centres[index][1] < eyes and np.linalg.norm(centres[index] - head) < 0.5 * unit:
            meaning[index] = LABEL_INDEX["hat"]
        else:
            worn = stats[index, cv2.CC_STAT_AREA] < _WORN_AREA * unit**2
            meaning[index] = _WORN if worn else _CARRIED
    labels[patches > 0] = meaning[patches[patches > 0]]


def _settle_carried(labels: np.ndarray, bones: Sequence[_Bone]) -> None:
    """Bags in front of the body hide it; beside the body they are background."""
    y, x = np.nonzero(labels == _CARRIED)
    reach = [bone._replace(handicap=0.0) for bone in bones]
    near = _distances(np.stack([x + 0.5, y + 0.5], axis=1), reach).min(axis=0) < _REACH
    labels[y, x] = np.where(near, OCCLUDER, LABEL_INDEX["background"])


def _settle_worn(labels: np.ndarray) -> None:
    """Jewellery and belts take the label of the nearest pixel that has one."""
    worn = labels == _WORN
    known = (labels > 0) & (labels < len(LABEL_INDEX))
    if not known.any():
        labels[worn] = UNKNOWN
    elif worn.any():
        nearest = _nearest(known, cv2.DIST_LABEL_PIXEL)
        table = np.zeros(nearest.max() + 1, dtype=np.uint8)
        table[nearest[known]] = labels[known]
        labels[worn] = table[nearest[worn]]


# ---- files and pixels


def _read_tags(path: Path) -> np.ndarray:
    tags = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if tags is None or tags.ndim != 2:
        raise InputError(f"{path}: not a readable 8-bit label map of Clothing Co-Parsing")
    return tags


def _bounds(labels: np.ndarray) -> tuple[int, int, int, int]:
    """First and one past the last row, first and one past the last column that are not background."""
    rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def _nearest(targets: np.ndarray, kind: int) -> np.ndarray:
    """(H, W) int64 number of the nearest target, a pixel or a connected component by OpenCV's `kind`."""
    found = cv2.distanceTransformWithLabels((~targets).astype(np.uint8), cv2.DIST_L2, 5, labelType=kind)
    return np.asarray(found[1], dtype=np.int64)
