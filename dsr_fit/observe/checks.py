"""What keypoints must be to be fitted to, wherever they come from: `Perception.observe` asks once, for everybody."""

from __future__ import annotations

import numpy as np

from dsr_fit.camera import CROP_MARGIN, SPIN_RESOLUTION
from dsr_fit.errors import InputError
from dsr_fit.joints import KEYPOINTS_49, MIN_KEYPOINTS
from dsr_fit.observation import Detection

MIN_CONFIDENCE = 0.3
"""Keypoints above it are usable: a fit's keypoint error is measured on them."""

MAX_CONFIDENCE = 2.0
"""Confidences above 1 up to it count as 1: maxima of heat maps, such as OpenPose's (1.4 was seen) and MMPose's (1.3).
Those above are of another unit, such as per cent or a network's raw scores."""

OUTSIDE = 1.0
"""How far outside the image a keypoint may be guessed, in widths of the image sideways, in heights up and down."""

MIN_SIDE = 8.0
"""Pixels that the usable keypoints span at least, along the longer side of their box."""

MIN_BREADTH = 1.0
"""Pixels of the 224 px crop that they span at least, across the line that they lie along."""

MAX_METRES = 5.0
"""3D landmarks are no farther than this from the hips."""


def check_person(who: str, person: Detection, image_size: tuple[int, int]) -> None:
    """Raises InputError, beginning with `who`, for keypoints or 3D landmarks that can't be those of a person in an
    image of (width, height), and for a mask of another size.
    """
    _check_arrays(who, person, image_size)
    size = np.array(image_size)
    observed = np.flatnonzero(person.keypoints[:, 2] > 0)
    for slot in observed:
        place = person.keypoints[slot, :2]
        if (place < -OUTSIDE * size).any() or (place > (1 + OUTSIDE) * size).any():
            raise InputError(
                f"{who} has its {KEYPOINTS_49[slot]} at {place[0]:.6g}, {place[1]:.6g}, too far outside the "
                f"{size[0]} x {size[1]} image; keypoints in pixels of this image work"
            )
    usable = person.keypoints[person.keypoints[:, 2] > MIN_CONFIDENCE, :2].astype(np.float64)
    if len(usable) < MIN_KEYPOINTS:
        raise InputError(f"{who} has {len(usable)} usable keypoints, a fit needs {MIN_KEYPOINTS}")
    if not ((usable > 0) & (usable < size)).all(axis=1).any():
        raise InputError(
            f"{who} has no usable keypoint inside the {size[0]} x {size[1]} image; is it of another image?"
        )
    width, height = np.ptp(usable, axis=0)
    if max(width, height) < MIN_SIDE:
        remedy = "are they shares of its size? pixels work" if usable.max() <= 2 else f"a fit needs {MIN_SIDE:g}"
        raise InputError(f"{who} has all keypoints within {width:.3g} x {height:.3g} pixels of the image; {remedy}")
    across = np.linalg.svd(usable - usable.mean(0), full_matrices=False)[2][1]
    if np.ptp(usable @ across) < MIN_BREADTH / SPIN_RESOLUTION * CROP_MARGIN * max(width, height):
        raise InputError(f"{who} has all keypoints on one line, which tell no pose; keypoints of a person work")


def _check_arrays(who: str, person: Detection, image_size: tuple[int, int]) -> None:
    """Shapes and ranges, which a file's reader sees to, and a caller of the API may not."""
    keypoints, landmarks, mask = person.keypoints, person.world_landmarks, person.person_mask
    expected = {
        "keypoints": (keypoints, (49, 3)),
        "world_landmarks": (landmarks, (49, 4)),
        "person_mask": (mask, image_size[::-1]),
    }
    for name, (array, shape) in expected.items():
        if array is None and name != "keypoints":
            continue
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "fiu":
            is_now = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"{who} has `{name}` of {is_now}; numbers of shape {shape} work")
        if not np.isfinite(array).all():
            raise InputError(f"{who} has `{name}` that are not finite; unobserved points have confidence 0")
    confidences = keypoints[:, 2]
    wrong = np.flatnonzero((confidences < 0) | (confidences > MAX_CONFIDENCE))
    if len(wrong):
        raise InputError(
            f"{who} has a confidence of {confidences[wrong[0]]:.6g} at its {KEYPOINTS_49[wrong[0]]}; 0 to 1 work, and "
            f"up to {MAX_CONFIDENCE:g} count as 1"
        )
    if landmarks is not None:
        farthest = np.abs(landmarks[landmarks[:, 3] > 0, :3]).max(initial=0)
        if farthest > MAX_METRES:
            raise InputError(f"{who} has 3D landmarks {farthest:.3g} m from the hips; metres about the hips work")
