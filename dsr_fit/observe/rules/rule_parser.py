"""A human parser by rule: the person mask, the keypoints' geometry and the person's own skin colour."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dsr_fit.labels import LABEL_INDEX, UNKNOWN
from dsr_fit.observation import Detection
from dsr_fit.observe.limbs import SIDES, Capsule, Skeleton2D, capsule_distances
from dsr_fit.observe.rules.garments import split_garments
from dsr_fit.observe.rules.regions import connected, disk, mask_from_keypoints, opened, spread
from dsr_fit.observe.rules.skin import (
    LIMB_MAX_STD,
    LIMB_MIN_STD,
    SHOE_MAX_STD,
    fit_colour,
    learn_skin,
    limb_distance,
    to_lab,
)

WORKING_SIDE = 320
"""Longer side in pixels of the crop that the rules work on."""

PERSON_THRESHOLD = 0.65
"""Person probability above which a pixel is the person's: MediaPipe's masks are a little wide."""

FACE_DISTANCE = 3.0
BODY_DISTANCE = 3.0
LIMB_DISTANCE = 3.8
"""Standard deviations up to which a pixel has the face's colour, may be an arm's or leg's skin at all, and
has the colour of a limb found bare. Chosen on training photos of Clothing Co-Parsing, as are the others."""

BARE_SHARE = 0.3
BARE_HAND_SHARE = 0.1
"""A limb is bare where this share of the pixels around its bone may be skin; hands hold things."""

GARMENT_SHARE = 0.5
"""A colour is a garment's where the torso has it on more than this share."""


class RuleParser:
    """Labels from the person mask, the keypoints' geometry and the person's own skin colour.

    It produces hair, face, upperclothes, dress, pants, skirt, arms, legs and shoes. It never produces hat
    (becomes hair), glove, coat and scarf (upperclothes), sunglasses (face), jumpsuits (upperclothes and
    pants), socks (pants); bags held before the body become clothes. Neck and chest skin is face. Arms, legs
    and face are labelled where colour and place agree, rather missed than guessed.
    """

    name = "rules"

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) uint8 labels. Without a person mask one is grown from the keypoints.

        All is background where the detection has neither; a mask without any usable keypoint becomes unknown.
        """
        mask = detection.person_mask
        if mask is None:
            mask = mask_from_keypoints(image, detection.keypoints)
        labels = np.zeros(image.shape[:2], dtype=np.uint8)
        person = _own_pieces(mask > PERSON_THRESHOLD, detection.keypoints)
        if not person.any():
            return labels
        rows, columns = np.flatnonzero(person.any(axis=1)), np.flatnonzero(person.any(axis=0))
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        scale = min(1.0, WORKING_SIDE / max(bottom - top, right - left))
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))

        small = cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
        small_person = cv2.resize(person[top:bottom, left:right].astype(np.float32), size, interpolation=cv2.INTER_AREA)
        keypoints = detection.keypoints.copy()
        zoom = np.array(size) / [right - left, bottom - top]
        keypoints[:, :2] = (keypoints[:, :2] - [left, top]) * zoom
        small_labels = _label_crop(small, small_person >= 0.5, Skeleton2D.from_keypoints(keypoints))

        # The outline is the full-size mask's: labels flow out to it from the nearest labelled pixel.
        full = cv2.resize(spread(small_labels), (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
        labels[top:bottom, left:right] = np.where(person[top:bottom, left:right], full, 0)
        return labels


def _own_pieces(person: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The connected pieces of a mask that hold a keypoint; all where none does."""
    height, width = person.shape
    sure = keypoints[keypoints[:, 2] > 0.3, :2]
    columns, rows = sure[:, 0].astype(int).clip(0, width - 1), sure[:, 1].astype(int).clip(0, height - 1)
    seed = np.zeros_like(person)
    seed[rows, columns] = True
    own = connected(person, seed)
    return own if own.any() else person


@dataclass(frozen=True)
class _Crop:
    """What the rules look at."""

    lab: np.ndarray
    """(H, W, 3) float32 smoothed colours."""

    person: np.ndarray
    """(H, W) bool"""

    face_skin: np.ndarray
    """(H, W) bool: the person's pixels in the face's colour."""

    limb_skin: dict[str, np.ndarray]
    """(H, W) bool of "Arm" and "Leg": the person's pixels in a colour that such a limb may have."""

    skeleton: Skeleton2D
    capsules: list[Capsule]
    distances: np.ndarray
    """(parts, H, W) in units of each part's radius."""

    owner: np.ndarray
    """(H, W) int: index of the nearest capsule."""

    def owned(self, *parts: str) -> np.ndarray:
        """(H, W) bool: the person's pixels that belong to the parts."""
        indices = [index for index, capsule in enumerate(self.capsules) if capsule.part in parts]
        return self.person & np.isin(self.owner, indices)

    def within(self, part: str, reach: float) -> np.ndarray:
        """(H, W) bool: the person's pixels up to `reach` radii from the part's axis."""
        inside = np.zeros_like(self.person)
        for index, capsule in enumerate(self.capsules):
            if capsule.part == part:
                inside |= self.distances[index] < reach
        return inside & self.person


def _label_crop(image: np.ndarray, person: np.ndarray, skeleton: Skeleton2D) -> np.ndarray:
    """(H, W) uint8 labels of a small picture filled by one person."""
    capsules = skeleton.capsules()
    if not capsules:
        return np.where(person, UNKNOWN, 0).astype(np.uint8)
    smooth = cv2.bilateralFilter(image, 5, 30, 3)
    lab = to_lab(smooth)
    distances = capsule_distances(capsules, *person.shape)
    colour = learn_skin(lab, skeleton)
    face_skin = person & (colour.distance(lab) < FACE_DISTANCE)
    limb_skin = {limb: person & (limb_distance(lab, colour, limb) < BODY_DISTANCE) for limb in ("Arm", "Leg")}
    crop = _Crop(lab, person, face_skin, limb_skin, skeleton, capsules, distances, distances.argmin(axis=0))

    face = _face(crop)
    hair = _hair(crop, face)
    taken = face | hair
    limbs: dict[str, np.ndarray] = {}
    for name, find in (("Arm", _arm), ("Shoe", _shoe), ("Leg", _leg)):
        for side in SIDES:
            limbs[side + name] = find(crop, side) & ~taken
            taken |= limbs[side + name]
    labels = np.where(person, split_garments(lab, person & ~taken, skeleton), 0).astype(np.uint8)
    labels[hair] = LABEL_INDEX["hair"]
    labels[face] = LABEL_INDEX["face"]
    for name, region in limbs.items():
        labels[region] = LABEL_INDEX[name]
    return labels


def _face(crop: _Crop) -> np.ndarray:
    """Skin of head, neck and chest, with the eyes, lips and glasses in it."""
    head = crop.owned("head") & crop.within("head", 1.6)
    seed = crop.face_skin & head
    if not seed.any():
        return seed
    unit = crop.skeleton.pixels_per_metre
    chest = crop.owned("neck") | _upper_chest(crop)
    torso = crop.owned("torso") & crop.within("torso", 0.8)
    if torso.any() and crop.face_skin[torso].mean() > 0.3:
        chest = crop.owned("neck")  # skin-coloured clothes: where the neckline is can't be seen
    chest = crop.face_skin & chest
    region = connected(opened(crop.face_skin & (head | chest), 0.008 * unit), seed & crop.within("head", 0.7))
    closed = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_CLOSE, disk(0.035 * unit)) > 0
    return (closed & crop.within("head", 1.0) & head) | region


def _upper_chest(crop: _Crop) -> np.ndarray:
    """Pixels of the torso near the neck: where a neckline shows skin."""
    neck = crop.skeleton.middle("left_shoulder", "right_shoulder")
    if neck is None:
        return np.zeros_like(crop.person)
    y, x = np.mgrid[: crop.person.shape[0], : crop.person.shape[1]] + 0.5
    near = np.hypot(x - neck[0], y - neck[1]) < 0.2 * crop.skeleton.pixels_per_metre
    return near & crop.owned("torso")


def _hair(crop: _Crop, face: np.ndarray) -> np.ndarray:
    """What is not skin around the head, and what hangs down from it in the same colour."""
    head = crop.owned("head", "neck")
    hair = crop.within("head", 1.9) & head & ~face
    centre = crop.skeleton.head
    if centre is None or not hair.any():
        return np.zeros_like(face)
    neck = crop.skeleton.middle("left_shoulder", "right_shoulder")
    unit = crop.skeleton.pixels_per_metre
    up = np.array([0.0, -1.0])
    if neck is not None and np.linalg.norm(centre - neck) > 1:
        up = (centre - neck) / np.linalg.norm(centre - neck)
    y, x = np.mgrid[: face.shape[0], : face.shape[1]] + 0.5
    height = ((x - centre[0]) * up[0] + (y - centre[1]) * up[1]) / unit  # metres above the ears
    crown = hair & (height > -0.02)
    if crown.sum() < 10:
        return crown
    colours = crop.lab[crown]
    mean = np.median(colours, axis=0)
    std = (1.48 * np.median(np.abs(colours - mean), axis=0)).clip([7, 3, 3], [14, 7, 8])
    alike = np.sqrt((((crop.lab - mean) / std) ** 2).sum(axis=2)) < 2.5
    below = crop.owned("torso") & (height < -0.2)
    if below.any() and alike[below].mean() > 0.35:
        alike &= height > -0.22  # clothes of the same colour: where the hair ends can't be seen
    hanging = alike & crop.person & (height > -0.55) & ~face & ~crop.face_skin
    return connected(crown | hanging, crown) | (hair & (height > -0.09))


def _arm(crop: _Crop, side: str) -> np.ndarray:
    """Bare skin of one hand and, as far up as it is bare, of its arm."""
    other = SIDES[1 - SIDES.index(side)]
    elsewhere = crop.owned("head", "neck", f"{side}_foot", f"{other}_hand", f"{other}_forearm", f"{other}_upper_arm")
    bare = np.zeros_like(crop.person)
    for part in ("hand", "forearm", "upper_arm"):
        core = crop.within(f"{side}_{part}", 0.8)
        if not core.any():
            continue
        share = BARE_HAND_SHARE if part == "hand" else BARE_SHARE
        region = _bare_skin(crop, "Arm", core, crop.within(f"{side}_{part}", 1.5) & ~elsewhere, share)
        if part != "hand" and not region.any():
            break  # a sleeve covers all that is above its end
        bare |= region
    return opened(bare, 0.006 * crop.skeleton.pixels_per_metre)


def _leg(crop: _Crop, side: str) -> np.ndarray:
    """Bare skin of one leg."""
    shin, thigh = crop.owned(f"{side}_shin"), crop.owned(f"{side}_thigh")
    leg = shin | thigh | crop.owned(f"{side}_foot")
    bare = _bare_skin(crop, "Leg", crop.within(f"{side}_shin", 0.8) & shin, leg, BARE_SHARE)
    if not bare.any():
        bare = _bare_skin(crop, "Leg", crop.within(f"{side}_thigh", 0.8) & thigh, thigh, BARE_SHARE)
    return opened(bare, 0.008 * crop.skeleton.pixels_per_metre)


def _bare_skin(crop: _Crop, limb: str, core: np.ndarray, region: np.ndarray, share: float) -> np.ndarray:
    """The region's pixels in the skin colour that the core shows; none where less than a share of it is skin.

    A colour that the torso has as well is a garment's: a sleeve or a leg of something skin-coloured.
    """
    none = np.zeros_like(core)
    candidates = crop.limb_skin[limb] & core
    if candidates.sum() < max(4, share * core.sum()):
        return none
    colour = fit_colour(crop.lab[candidates], LIMB_MIN_STD, LIMB_MAX_STD)
    alike = colour.distance(crop.lab) < LIMB_DISTANCE
    torso = crop.within("torso", 0.8) & ~crop.owned("neck", "head")
    if torso.any() and alike[torso].mean() > GARMENT_SHARE:
        return none
    return connected(alike & region, candidates)


def _shoe(crop: _Crop, side: str) -> np.ndarray:
    """The foot's pixels, and a boot's shaft: told from the leg by the colours at the sole and at the knee."""
    foot, shin = crop.owned(f"{side}_foot"), crop.owned(f"{side}_shin")
    sole = foot & crop.within(f"{side}_foot", 0.7)
    knee = crop.skeleton.points.get(f"{side}_knee")
    if sole.sum() < 4 or knee is None:
        return foot
    y, x = np.mgrid[: foot.shape[0], : foot.shape[1]] + 0.5
    near_knee = np.hypot(x - knee[0], y - knee[1]) < 0.12 * crop.skeleton.pixels_per_metre
    near_knee &= shin | crop.owned(f"{side}_thigh")
    if near_knee.sum() < 4:
        return foot
    to_shoe, to_leg = (
        fit_colour(crop.lab[seed], LIMB_MIN_STD, SHOE_MAX_STD).distance(crop.lab) for seed in (sole, near_knee)
    )
    shaft = shin & ~crop.limb_skin["Leg"] & (to_shoe < 2) & (to_shoe < 0.5 * to_leg)
    return connected(opened(foot | shaft, 0.008 * crop.skeleton.pixels_per_metre), sole)
