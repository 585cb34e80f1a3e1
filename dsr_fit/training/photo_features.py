"""What the landmark network's features show of people in photos, as each photo is and mirrored."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dsr_fit.boxes import keypoint_box
from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing
from dsr_fit.joints import coco_keypoints
from dsr_fit.observe.landmarks import LandmarkNetwork, Region
from dsr_fit.observe.pose_features import LENGTH
from dsr_fit.training.pseudo_labels import PseudoLabels

CERTAIN = 0.5
"""Presence from which on the network sees somebody where the keypoints are."""


def photo_features(labels: PseudoLabels, folder: Path) -> np.ndarray:
    """(N, 2, `LENGTH`) float16 of everybody: in the photo, and in the mirrored one.

    Zeros where a photo can't be read, or nobody is seen. The folder keeps them, 90 KB a person.
    """
    people = hashlib.sha256("\0".join(labels.imgname).encode("utf-8", "surrogateescape") + labels.keypoints.tobytes())
    cache = folder / f"{people.hexdigest()[:16]}.npy"
    if cache.exists():
        return np.load(cache, mmap_mode="r", allow_pickle=False)
    network = LandmarkNetwork("heavy")
    features = np.zeros((len(labels), 2, LENGTH), np.float16)
    for row in range(len(labels)):
        try:
            image = labels.image(row)
        except InputError:
            continue
        keypoints = labels.keypoints[row]
        region = Region.of_keypoints(coco_keypoints(keypoints), keypoint_box(keypoints))
        x, y = region.center
        reflected = Region((image.shape[1] - x, y), region.side, -region.angle)
        pair = [(image, region), (np.ascontiguousarray(image[:, ::-1]), reflected)]
        for side, seen in enumerate(network.look(pair)):
            if seen.presence > CERTAIN and seen.pose_features is not None:
                features[row, side] = seen.pose_features
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as temporary, temporary.open("wb") as file:
        np.save(file, features)
    return features
