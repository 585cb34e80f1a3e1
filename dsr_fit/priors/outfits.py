"""A person's outfit from the areas in a label map: bare or covered legs, length of the top, length of the sleeves.

An average prior treats vertices independently; it can't express that if one knee is bare, so is the other. Legs and
trunk are classified apart from sleeves, so that there are few classes, each with much data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsr_fit.body.body import Body
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import LABEL_INDEX, LABELS, MIN_PIXELS_AT_224

BARE_LEGS = 0.05
"""Bare legs from this share of the person on; head and gloves are left out."""

TOPS = (0.45, 0.60)
"""Bounds of the share of upper clothes, coat, dress and jumpsuits: short, middle, long."""

BARE_ARMS = (0.06, 0.15)
"""Bounds of the share of bare arms in arms and tops together: long, middling, short sleeves."""

TRUNKS: tuple[str, ...] = (
    "legs covered, short top",
    "legs covered, top over the hips",
    "legs covered, long top",
    "legs bare, short top",
    "legs bare, top over the hips",
    "legs bare, long top",
)
"""Classes of legs and trunk: trousers or stockings, and shorts, skirt or dress, each with three lengths of the top."""

SLEEVES: tuple[str, ...] = ("long sleeves", "middling sleeves", "short sleeves")


def _members(names: str) -> list[int]:
    return [LABEL_INDEX[name] for name in names.split()]


_TOP = _members("upperclothes dress coat jumpsuits")
_BOTTOM = _members("socks pants skirt")
_ARMS = _members("leftArm rightArm")
_LEGS = _members("leftLeg rightLeg")
_SHOES = _members("leftShoe rightShoe")


@dataclass(frozen=True)
class Outfit:
    """Indices into `TRUNKS` and `SLEEVES`; None where too little is visible."""

    trunk: int | None
    sleeves: int | None


def outfit_of(labels: np.ndarray) -> Outfit:
    """Classify the label map (H, W) of one person, preferably of the crop."""
    areas = np.bincount(labels.ravel(), minlength=256)[: len(LABELS)]
    top, bottom, arms, legs, shoes = (int(areas[group].sum()) for group in (_TOP, _BOTTOM, _ARMS, _LEGS, _SHOES))
    least = MIN_PIXELS_AT_224 * labels.size / 224**2
    person = top + bottom + arms + legs + shoes
    trunk = sleeves = None
    if bottom + legs + shoes >= least:  # else the image is cut at the waist
        length = int(np.digitize(top / person, TOPS))
        trunk = length + 3 * int(legs >= BARE_LEGS * person)
    if top + arms >= least:
        sleeves = int(np.digitize(arms / (top + arms), BARE_ARMS))
    return Outfit(trunk, sleeves)


def on_arms(body: Body) -> np.ndarray:
    """(V,) bool: vertices of shoulders, elbows, wrists and hands, which sleeves cover."""
    part = body.weights.dense().cpu().numpy().argmax(1)
    arms = [name.endswith(("shoulder", "elbow", "wrist", "hand")) for name in SMPL_JOINTS]
    return np.array(arms)[part]
