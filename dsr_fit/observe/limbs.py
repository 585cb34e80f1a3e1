"""Body parts of a person's pixels from 2D keypoints: bones as capsules, the nearest one owns the pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsr_fit.joints import KEYPOINT_INDEX

# Each point's slots: BODY_25 and MediaPipe fill the first block, COCO the second.
POINT_SLOTS: dict[str, tuple[int, ...]] = {
    name: tuple(KEYPOINT_INDEX[slot] for slot in slots)
    for name, slots in {
        "nose": ("Nose", "Nose (COCO)"),
        "left_eye": ("LEye", "Left Eye"), "right_eye": ("REye", "Right Eye"),
        "left_ear": ("LEar", "Left Ear"), "right_ear": ("REar", "Right Ear"),
        "left_shoulder": ("LShoulder", "Left Shoulder"), "right_shoulder": ("RShoulder", "Right Shoulder"),
        "left_elbow": ("LElbow", "Left Elbow"), "right_elbow": ("RElbow", "Right Elbow"),
        "left_wrist": ("LWrist", "Left Wrist"), "right_wrist": ("RWrist", "Right Wrist"),
        "left_hip": ("LHip", "Left Hip"), "right_hip": ("RHip", "Right Hip"),
        "left_knee": ("LKnee", "Left Knee"), "right_knee": ("RKnee", "Right Knee"),
        "left_ankle": ("LAnkle", "Left Ankle"), "right_ankle": ("RAnkle", "Right Ankle"),
        "left_heel": ("LHeel",), "right_heel": ("RHeel",),
        "left_toe": ("LBigToe",), "right_toe": ("RBigToe",),
    }.items()
}  # fmt: skip

# Lengths of an average adult's bones in metres: the longest seen against these gives the picture's scale.
_BONE_METRES: tuple[tuple[str, str, float], ...] = tuple(
    (f"{side}_{a}", f"{side}_{b}", metres)
    for side in ("left", "right")
    for a, b, metres in (
        ("shoulder", "elbow", 0.29), ("elbow", "wrist", 0.25), ("hip", "knee", 0.41), ("knee", "ankle", 0.40),
        ("shoulder", "hip", 0.48),
    )
) + (("left_shoulder", "right_shoulder", 0.36),)  # fmt: skip

SIDES = ("left", "right")


@dataclass(frozen=True)
class Capsule:
    """A body part as the pixels within `radius` of the segment from `start` to `end`, in pixels."""

    part: str
    start: np.ndarray
    end: np.ndarray
    radius: float


@dataclass(frozen=True)
class Skeleton2D:
    """The observed points of one person in a picture, and the picture's scale."""

    points: dict[str, np.ndarray]
    """(2,) pixels of each point seen."""

    pixels_per_metre: float

    @classmethod
    def from_keypoints(cls, keypoints: np.ndarray, min_confidence: float = 0.3) -> Skeleton2D:
        """The skeleton of (49, 3) keypoints, in their pixels; points at or below the confidence are unseen."""
        points = {
            name: point[:2].astype(np.float64)
            for name, point in zip(POINT_SLOTS, point_array(keypoints), strict=True)
            if point[2] > min_confidence
        }
        ratios = [float(np.linalg.norm(points[a] - points[b])) / metres
                  for a, b, metres in _BONE_METRES if a in points and b in points]  # fmt: skip
        if ratios:
            # Foreshortening only shortens: the longest bones tell the scale, the second longest is safe from a
            # slip.
            scale = sorted(ratios)[-2] if len(ratios) > 1 else ratios[0]
        else:
            seen = np.array(list(points.values())) if points else np.zeros((1, 2))
            scale = float(np.ptp(seen, axis=0).max()) / 0.15  # a face alone
        return cls(points, max(scale, 1.0))

    def capsules(self) -> list[Capsule]:
        """Every part whose points were seen; hands, which have no points of their own, extrapolated."""
        points, scale = self.points, self.pixels_per_metre
        parts: list[Capsule] = []

        def add(part: str, start: np.ndarray | None, end: np.ndarray | None, metres: float) -> None:
            if start is not None and end is not None:
                parts.append(Capsule(part, start, end, metres * scale))

        head, neck = self.head, self.middle("left_shoulder", "right_shoulder")
        hips = self.middle("left_hip", "right_hip")
        add("head", head, head, 0.115)
        add("neck", head, neck, 0.05)
        add("torso", neck, hips, 0.12)
        for side in SIDES:
            shoulder, elbow, wrist = (points.get(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist"))
            hip, knee, ankle = (points.get(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
            heel, toe = points.get(f"{side}_heel"), points.get(f"{side}_toe")
            add("torso", shoulder, hip, 0.09)
            add(f"{side}_upper_arm", shoulder, elbow, 0.05)
            add(f"{side}_forearm", elbow, wrist, 0.042)
            if elbow is not None and wrist is not None:
                add(f"{side}_hand", wrist, wrist + 0.1 * scale * _direction(elbow, wrist), 0.055)
            add(f"{side}_thigh", hip, knee, 0.085)
            add(f"{side}_shin", knee, ankle, 0.055)
            if ankle is not None and (heel is None or toe is None):
                down = _direction(knee, ankle) if knee is not None else np.array([0.0, 1.0])
                heel = ankle + 0.06 * scale * down
                toe = ankle + 0.12 * scale * down
            add(f"{side}_foot", heel, toe, 0.05)
        return parts

    @property
    def head(self) -> np.ndarray | None:
        """Centre of the head: between the ears, else the mean of what is seen of the face."""
        both = self.middle("left_ear", "right_ear")
        if both is not None:
            return both
        seen = [self.points[name] for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
                if name in self.points]  # fmt: skip
        return np.mean(seen, axis=0) if seen else None

    def middle(self, first: str, second: str) -> np.ndarray | None:
        """Half way between two points, None unless both are seen."""
        if first in self.points and second in self.points:
            return (self.points[first] + self.points[second]) / 2
        return None


def point_array(keypoints: np.ndarray) -> np.ndarray:
    """(49, 3) keypoints -> (21, 3) float32 in the order of `POINT_SLOTS`, each from its more confident slot."""
    slots = [max(slots, key=lambda slot: keypoints[slot, 2]) for slots in POINT_SLOTS.values()]
    return keypoints[slots].astype(np.float32)


def capsule_distances(capsules: list[Capsule], height: int, width: int) -> np.ndarray:
    """(parts, H, W) float32 distance of each pixel's centre to each capsule's axis, in radii of it."""
    x = (np.arange(width, dtype=np.float32) + 0.5)[None, :]
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None]
    distances = np.empty((len(capsules), height, width), dtype=np.float32)
    for index, capsule in enumerate(capsules):
        axis = capsule.end - capsule.start
        length2 = max(float(axis @ axis), 1e-6)
        along = ((x - capsule.start[0]) * axis[0] + (y - capsule.start[1]) * axis[1]) / length2
        along = along.clip(0, 1)
        dx = x - capsule.start[0] - along * axis[0]
        dy = y - capsule.start[1] - along * axis[1]
        distances[index] = np.sqrt(dx * dx + dy * dy) / max(capsule.radius, 1.0)
    return distances


def _direction(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    step = end - start
    return step / max(float(np.linalg.norm(step)), 1e-6)
