"""The 20 Graphonomy ("universal", LIP) clothing labels, their colours, and the label sets of the DSR terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LABELS: tuple[str, ...] = (
    "background", "hat", "hair", "glove", "sunglasses", "upperclothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "leftArm", "rightArm", "leftLeg", "rightLeg", "leftShoe",
    "rightShoe",
)  # fmt: skip

LABEL_INDEX: dict[str, int] = {name: index for index, name in enumerate(LABELS)}

OTHER_PERSON = 253
"""Another person, in front of this one or behind: no term counts it until fits say which."""

OCCLUDER = 254
"""Something in front of this person: what lies behind is unknown."""

UNKNOWN = 255
"""Ignored pixels: outside the image, or not annotated."""

# The colours (R, G, B) that Graphonomy's PNGs carry, row by label index.
COLOURS: np.ndarray = np.array(
    [
        (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85),
        (0, 119, 221), (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255),
        (51, 170, 221), (0, 255, 255), (85, 255, 170), (170, 255, 85), (255, 255, 0), (255, 170, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip

LEFT_RIGHT_PAIRS: tuple[tuple[int, int], ...] = ((14, 15), (16, 17), (18, 19))
"""Labels that trade places when an image is flipped."""

MIRRORED_LABELS: np.ndarray = np.arange(256, dtype=np.uint8)
"""(256,) what each index of a label map is in a mirror."""
for _left, _right in LEFT_RIGHT_PAIRS:
    MIRRORED_LABELS[[_left, _right]] = _right, _left


def shows_person(labels: np.ndarray) -> np.ndarray:
    """Bool, of any shape: where this person is seen, whatever it wears."""
    return np.asarray((labels > 0) & (labels < len(LABELS)))


ATR_LABELS: tuple[str, ...] = (
    "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
    "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
)  # fmt: skip
"""The 18 labels of ATR (Liang et al. 2015) in the order of its index maps."""

ATR_TO_LABEL: np.ndarray = np.array(
    [0, 1, 2, 4, 5, 12, 9, 6, UNKNOWN, 18, 19, 13, 16, 17, 14, 15, OCCLUDER, 11], dtype=np.uint8
)
"""(18,) our label of each of ATR's. A belt lies on tops and trousers alike, so it is unknown; a bag hides the body."""


@dataclass(frozen=True)
class LabelSet:
    """A merge of the 20 labels into the classes of DSR-C; class 0 is the background."""

    name: str
    classes: Mapping[str, tuple[int, ...]]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def lookup(self) -> np.ndarray:
        """(256,) int64: class of each label index; occluder, unknown and unused indices map to -1."""
        table = np.full(256, -1, dtype=np.int64)
        for number, members in enumerate(self.classes.values()):
            table[list(members)] = number
        return table

    def membership(self) -> np.ndarray:
        """(20, classes) float32, 1 where the label belongs to the class: merged = probabilities @ membership."""
        matrix = np.zeros((len(LABELS), self.num_classes), dtype=np.float32)
        for number, members in enumerate(self.classes.values()):
            matrix[list(members), number] = 1
        return matrix


def _label_set(name: str, **classes: str) -> LabelSet:
    return LabelSet(name, {key: tuple(LABEL_INDEX[label] for label in value.split()) for key, value in classes.items()})


LABEL_SETS: dict[str, LabelSet] = {
    # Table 1 of the supplementary.
    "paper4": _label_set(
        "paper4",
        background="background",
        lower_clothes="pants skirt",
        upper_clothes="upperclothes dress coat jumpsuits",
        minimal_clothing="hat hair glove sunglasses socks scarf face leftArm rightArm leftLeg rightLeg "
        "leftShoe rightShoe",
    ),
    # The released code.
    "code8": _label_set(
        "code8",
        background="background",
        head="hat hair sunglasses scarf face",
        upper_clothes="glove upperclothes dress coat jumpsuits",
        pants="socks pants skirt",
        left_arm="leftArm",
        right_arm="rightArm",
        left_leg="leftLeg leftShoe",
        right_leg="rightLeg rightShoe",
    ),
}

MC_LABELS: tuple[int, ...] = tuple(
    LABEL_INDEX[name] for name in ("leftArm", "rightArm", "leftShoe", "rightShoe", "face")
)
"""The minimally clothed labels that DSR-MC matches tightly."""

MIN_PIXELS_AT_224 = 60
"""A label that covers less of a 224 px crop is dropped for that image; scales with the resolution's area."""

BOX_MARGIN_AT_224 = 30
"""Labels farther than this outside the keypoints' box belong to somebody else; scales with the resolution."""


def valid_mc_labels(labels: np.ndarray) -> np.ndarray:
    """(5,) bool in the order of `MC_LABELS`: which cover enough of this (S, S) crop of labels to count."""
    threshold = MIN_PIXELS_AT_224 * (labels.shape[0] / 224) ** 2
    return np.array([(labels == label).sum() >= threshold for label in MC_LABELS])
