"""Reader of Clothing Co-Parsing (Yang, Luo, Lin, CVPR 2014): 59 clothing tags to the 20 Graphonomy labels.

The tags don't distinguish left and right, and one tag, `skin`, covers face, arms and legs. Keypoints recover both: each
skin or shoe pixel gets the body part with the nearest bone, in units of the part's thickness. `docs/ccp_labels.md` has
the table and explains its doubtful rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dsr_fit.errors import InputError
from dsr_fit.evaluate.capsules import Bone, bones_of, complete_skeleton, distances
from dsr_fit.labels import LABEL_INDEX, OCCLUDER, UNKNOWN

SPLITS: tuple[str, ...] = ("train", "tune", "val")
_SPLIT_OF_DIGIT = {"6": "val", "5": "tune"}

# Tags without a label of their own: split by keypoints, or resolved from their surroundings.
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
"""Each of the 59 tags -> its Graphonomy label, or the rule that resolves it."""


def photo_path(folder: Path, number: str) -> Path:
    """The photo's file; `folder` holds `photos`, `labels` and `labels.txt`."""
    return folder / "photos" / f"{number}.jpg"


def split_of(number: str) -> str:
    """The split of a photo, by the last digit of its number."""
    return _SPLIT_OF_DIGIT.get(number[-1], "train")


def photo_numbers(folder: Path, split: str, annotated: bool = True) -> list[str]:
    """The sorted numbers ("0006", ...) of a split; with `annotated` only those whose label map has a person.

    Raises InputError for an unknown split, or a folder without photos.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    pattern = "labels/*.png" if annotated else "photos/*.jpg"
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"no {pattern} in {folder}; it should be the unpacked Clothing Co-Parsing data")
    paths = [path for path in paths if split_of(path.stem) == split]
    return [path.stem for path in paths if not annotated or _read_tags(path).any()]


def read_annotation(folder: Path, number: str, keypoints: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels of a photo, see `tags_to_labels`; `keypoints` (49, 3) in its pixels."""
    names = [line.split()[1] for line in (folder / "labels.txt").read_text().splitlines() if line.strip()]
    return tags_to_labels(_read_tags(folder / "labels" / f"{number}.png"), names, keypoints)


def tags_to_labels(tags: np.ndarray, tag_names: Sequence[str], keypoints: np.ndarray) -> np.ndarray:
    """Convert a map of clothing tags to Graphonomy labels.

    Args:
        tags: (H, W) uint8 index into `tag_names`.
        tag_names: names as in the data's `labels.txt`.
        keypoints: (49, 3) x, y in pixels and confidence; points of confidence 0 are inferred from the others, or, if
            there are none, from the person's box (standing upright, facing the camera).

    Returns:
        (H, W) uint8: 0..19 of `labels.LABELS`; 254 for carried things in front of the body; 255 for skin without a
        label (a bare belly) or of another person.

    Raises InputError for a tag missing from the table.
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

    left, top, width, height = cv2.boundingRect(labels)
    person = labels[top : top + height, left : left + width]  # a view: edits go into `labels`
    points, unit = complete_skeleton(keypoints, (left, top, left + width, top + height))
    points = {name: point - (left, top) for name, point in points.items()}
    bones = bones_of(points, unit)
    _mend_misplaced(person, points)
    _settle_extras(person, points, unit)
    _split_suit(person, points, unit)
    _split_skin(person, bones, unit)
    _split_shoes(person, bones, unit)
    _settle_carried(person, bones)
    _settle_worn(person)
    return labels


# Rules. Lengths and areas are in torso lengths; all were tuned by eye on training photos.
_HIDDEN_PENALTY = 2.5  # radii added to a part none of whose bones crosses the patch of skin
_HIDDEN_ARM_PENALTY = 1.5  # lower: hands are small, and their keypoints often miss them
_SEEN_SHARES = (0.3, 0.6)  # of a bone on the patch: only a hand in front of it; practically all of it
_HAND_AREA = 0.05  # a smaller patch of skin is one part
_WORN_AREA = 0.025  # smaller accessories are jewellery, larger ones are carried
_REACH = 1.3  # radii within which a carried thing is in front of the body
_SHOE_NECK = 0.04  # half the width of a contact at which touching shoes are separated
_SUIT_HEM = 0.2  # how far below the hips a suit's jacket ends
_STRANGER = 5.0  # radii beyond which skin belongs to another person
_ARMS = (LABEL_INDEX["leftArm"], LABEL_INDEX["rightArm"])
_LOWER_GARMENTS = tuple(LABEL_INDEX[name] for name in ("pants", "skirt", "dress", "jumpsuits"))


def _split_skin(labels: np.ndarray, bones: Sequence[Bone], unit: float) -> None:
    """Assign skin pixels to the nearest part, with a penalty for parts whose bones miss the patch (a covered thigh)."""
    skin = labels == _SKIN
    if not skin.any():
        return
    joined = (skin | (labels == _WORN)).astype(np.uint8)  # a bracelet doesn't separate the hand
    count, patches, stats, _ = cv2.connectedComponentsWithStats(joined)
    parts = sorted({bone.label for bone in bones})
    seen = _visible_shares(patches, count, bones, unit)
    y, x = np.nonzero(skin)
    patch = patches[y, x]
    distance = distances(np.stack([x + 0.5, y + 0.5], axis=1), bones)
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


def _visible_shares(patches: np.ndarray, count: int, bones: Sequence[Bone], unit: float) -> np.ndarray:
    """(bones, patches) share of each bone's length on or near each patch."""
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


def _split_shoes(labels: np.ndarray, bones: Sequence[Bone], unit: float) -> None:
    """Assign each shoe, a lobe of the mask, to the nearer foot; a lobe under both feet is split between them."""
    shoes = (labels == _SHOE).astype(np.uint8)
    y, x = np.nonzero(shoes)
    if len(y) == 0:
        return
    pixels = np.stack([x + 0.5, y + 0.5], axis=1)
    left, right = (
        distances(pixels, [bone for bone in bones if bone.label == LABEL_INDEX[leg]][1:]).min(axis=0)
        for leg in ("leftLeg", "rightLeg")
    )  # without the thighs
    lean = left - right

    size = 2 * round(_SHOE_NECK * unit) + 1
    cores = cv2.erode(shoes, np.ones((size, size), np.uint8))
    pieces = cv2.connectedComponents(shoes)[1]
    cores |= shoes & ~np.isin(pieces, pieces[cores > 0])  # straps too thin for a core
    lobe = _nearest(cores > 0, cv2.DIST_LABEL_CCOMP)[y, x]
    area = np.bincount(lobe)
    mean_lean = np.bincount(lobe, weights=lean) / np.maximum(area, 1)
    on_right = np.bincount(lobe, weights=lean > 0) / np.maximum(area, 1)
    both_feet = (np.minimum(on_right, 1 - on_right) > 0.25) & (area > 0.5 * area.sum())
    is_right = np.where(both_feet[lobe], lean, mean_lean[lobe]) > 0
    first, second = np.argsort(area)[::-1][:2]
    if min(is_right.mean(), 1 - is_right.mean()) < 0.1 and area[second] > 0.35 * area[first]:
        # Two shoes never belong to the same foot.
        is_right = mean_lean[lobe] > (mean_lean[first] + mean_lean[second]) / 2
    labels[y, x] = np.where(is_right, LABEL_INDEX["rightShoe"], LABEL_INDEX["leftShoe"])


def _mend_misplaced(labels: np.ndarray, points: dict[str, np.ndarray]) -> None:
    """Correct impossible tags: "jeans" on a denim jacket, "stockings" on a sleeve, and the like."""
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
    """A suit is a jacket if trousers or a skirt have their own tag, else jacket and trousers."""
    suit = labels == _SUIT
    alone = np.isin(labels, _LOWER_GARMENTS).sum() < 0.2 * suit.sum()
    labels[suit] = LABEL_INDEX["coat"]
    hem = int(points["MidHip"][1] + _SUIT_HEM * unit)
    if alone and 0 < hem < len(labels):
        labels[hem:][suit[hem:]] = LABEL_INDEX["pants"]


def _settle_extras(labels: np.ndarray, points: dict[str, np.ndarray], unit: float) -> None:
    """Accessories: on top of the head a hat, small ones jewellery, others carried."""
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


def _settle_carried(labels: np.ndarray, bones: Sequence[Bone]) -> None:
    """Bags in front of the body are occluders, beside it background."""
    y, x = np.nonzero(labels == _CARRIED)
    reach = [bone._replace(handicap=0.0) for bone in bones]
    near = distances(np.stack([x + 0.5, y + 0.5], axis=1), reach).min(axis=0) < _REACH
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


def _read_tags(path: Path) -> np.ndarray:
    tags = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if tags is None or tags.ndim != 2:
        raise InputError(f"{path}: not a readable 8-bit label map of Clothing Co-Parsing")
    return tags


def _nearest(targets: np.ndarray, kind: int) -> np.ndarray:
    """(H, W) int64 number of the nearest target, a pixel or a connected component by OpenCV's `kind`."""
    found = cv2.distanceTransformWithLabels((~targets).astype(np.uint8), cv2.DIST_L2, 5, labelType=kind)
    return np.asarray(found[1], dtype=np.int64)
