"""Measures people: BlazePose's 33 landmarks in the picture and in 3D and a mask, from a turned square around each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.boxes import Box
from dsr_fit.camera import Crop
from dsr_fit.observe.blazepose import FULL, HEAVY, INPUT, BlazePose, Landmarks
from dsr_fit.observe.crop import warp
from dsr_fit.observe.device_batches import batched
from dsr_fit.observe.layers import with_weights
from dsr_fit.observe.pose_features import pose_features
from dsr_fit.threads import one_torch_thread, over_images

DetectorSize = Literal["heavy", "full"]

BODY = 33
"""The first landmarks are the body's."""

CENTER, REACH = 33, 34
"""Landmarks that place the next region: its centre, and a point on the circle around the whole body."""

MARGIN = 1.25
"""Side of a region over the diameter of the circle around the body."""

HEAT_WINDOW, MIN_HEAT = 9, 0.5
"""Heat maps refine landmarks within so many cells, where their peak is so high: as MediaPipe does it, though its graph
says 7 cells."""

MIN_KEYPOINT = 0.2
"""Confidence of the finder's keypoints that place a region."""

TORSO_OF_NECK, TORSO_OF_SHOULDERS, LEGS_OF_TORSO = 1.8, 1.3, 1.7
"""Of the mean body, for people who are cut off: shoulders to hips over nose to shoulders, shoulders to hips over the
shoulders' width, and hips to ankles over shoulders to hips."""

_SHOULDERS, _HIPS, _LEGS, _NOSE = (5, 6), (11, 12), (13, 14, 15, 16), (0,)


@dataclass(frozen=True)
class Region:
    """A square of the image, turned so that the person in it is upright."""

    center: tuple[float, float]
    """Pixels."""
    side: float
    angle: float
    """Radians by which the image is turned (clockwise as it is seen) to show the person upright."""

    def matrix(self, size: int = INPUT) -> np.ndarray:
        """(2, 3) from pixels of the image to those of the crop."""
        return Crop(self.center, self.side).matrix(size, self.angle)

    @classmethod
    def of_circle(cls, center: np.ndarray, point: np.ndarray, up: np.ndarray) -> Region:
        """Around a body within the circle about `center` through `point`; `up` (2,) leads to its head."""
        side = 2 * MARGIN * float(np.linalg.norm(point - center))
        angle = -np.pi / 2 - float(np.arctan2(up[1], up[0]))
        turned = (angle + np.pi) % (2 * np.pi) - np.pi
        return cls((float(center[0]), float(center[1])), max(side, 1.0), turned)

    @classmethod
    def of_keypoints(cls, keypoints: np.ndarray, box: Box) -> Region:
        """Of (17, 3) COCO keypoints: about the mid-hip, as far as the farthest keypoint, along hips and shoulders.

        Where the picture cuts a person off, the region reaches as far beyond as the body does: where no leg is seen it
        is as wide as legs are long, where no hip is, hips are where shoulders and nose let expect them. Where they
        are not seen either, the box stands in for everything.
        """
        seen = keypoints[:, 2] > MIN_KEYPOINT
        hips, shoulders, legs, nose = (_middle(keypoints, seen, which) for which in (_HIPS, _SHOULDERS, _LEGS, _NOSE))
        up = np.array([0.0, -1.0])
        if hips is None and shoulders is not None:
            reach = 0.0 if nose is None else float(np.linalg.norm(nose - shoulders))
            left, right = keypoints[list(_SHOULDERS), :2]
            wide = float(np.linalg.norm(left - right)) if seen[list(_SHOULDERS)].all() else 0.0
            if nose is not None and reach > 0:
                up = up + (nose - shoulders) / reach  # heads are bent
                up = up / max(float(np.linalg.norm(up)), 1e-6)
            hips = shoulders - up * max(TORSO_OF_NECK * reach, TORSO_OF_SHOULDERS * wide)
        elif hips is not None and shoulders is not None:
            up = shoulders - hips
        if hips is None or not seen.any():
            x, y, width, height = box
            return cls((x + width / 2, y + height / 2), MARGIN * max(width, height, 1.0), 0.0)
        gaps = np.linalg.norm(keypoints[seen, :2] - hips, axis=1)
        torso = 0.0 if shoulders is None else float(np.linalg.norm(shoulders - hips))
        radius = max(float(gaps.max()), 0.0 if legs is not None else LEGS_OF_TORSO * torso)
        if np.linalg.norm(up) < 0.1 * radius:  # seen along the spine
            up = np.array([0.0, -1.0])
        return cls.of_circle(hips, hips + (radius, 0), up)

    def differs(self, other: Region) -> bool:
        """Whether a look at one is not as good as a look at the other."""
        shift = np.hypot(self.center[0] - other.center[0], self.center[1] - other.center[1])
        turn = abs((self.angle - other.angle + np.pi) % (2 * np.pi) - np.pi)
        return bool(
            shift > SHIFT * self.side or not 1 / SCALE < other.side / self.side < SCALE or turn > np.radians(TURN)
        )


SHIFT, SCALE, TURN = 0.1, 1.25, 20.0
"""A second look follows where the next region is off by more: in shares of the side, as a factor, in degrees."""


def _middle(keypoints: np.ndarray, seen: np.ndarray, which: tuple[int, ...]) -> np.ndarray | None:
    """(2,) mean of those of some keypoints that are seen, if any."""
    chosen = [index for index in which if seen[index]]
    return keypoints[chosen, :2].mean(0) if chosen else None


@dataclass(frozen=True)
class Measured:
    """What one look at a region shows."""

    region: Region
    points: np.ndarray
    """(33, 3) x, y in pixels of the image, also outside it, and visibility 0..1."""
    world: np.ndarray
    """(33, 3) metres about the mid-hip, in the axes of the image."""
    presence: float
    """Probability that there is a person in the region."""
    mask: np.ndarray
    """(256, 256) float32 probability of the person, in the region."""
    following: Region
    """Where the landmarks say that the person is."""
    features: tuple[Tensor, ...] | None
    """The `heavy` encoder's, see `Look.features`."""
    pose_features: np.ndarray | None
    """See `dsr_fit.observe.pose_features`."""


class LandmarkNetwork:
    """BlazePose with MediaPipe's regions, refinement and second looks."""

    def __init__(
        self,
        size: DetectorSize = "heavy",
        weights: Path | None = None,
        device: str = "cpu",
        batch: int | None = None,
    ) -> None:
        """`weights`: a safetensors file, by default the one that ships; `batch`: see `device_batches.batched`.

        Raises InputError where the weights can't be used.
        """
        path = weights or shipped(f"priors/detector/{size}.safetensors")
        self.network = with_weights(lambda: BlazePose({"heavy": HEAVY, "full": FULL}[size]), path).to(device)
        self.size = size
        # On a CPU a batch costs the same a person, and alone each gets the same to the bit, whoever else is there; the
        # cores share the people out.
        self.alone = device == "cpu" and batch is None
        self._answers = batched(self._seen, device, batch)

    def measure(self, people: Sequence[tuple[np.ndarray, Region]]) -> list[list[Measured]]:
        """The looks at each person: one at its region and, where that shows that the region was wrong, one at the right
        region."""
        looks = [[seen] for seen in self.look(people)]
        again = [n for n, (seen,) in enumerate(looks) if seen.presence > 0.5 and seen.region.differs(seen.following)]
        for n, second in zip(again, self.look([(people[n][0], looks[n][0].following) for n in again]), strict=True):
            looks[n].append(second)
        return looks

    def look(self, people: Sequence[tuple[np.ndarray, Region]]) -> list[Measured]:
        """One look at each person in a region of an (H, W, 3) uint8 RGB image."""
        if not people:
            return []
        if not self.alone:
            return self._look(people)
        with one_torch_thread():
            parts = over_images(lambda start, stop: self._look(people[start:stop]), len(people))
        return [one for part in parts for one in part]

    def _look(self, people: Sequence[tuple[np.ndarray, Region]]) -> list[Measured]:
        found: list[Measured] = []
        step = 1 if self.alone else len(people)
        for start in range(0, len(people), step):
            part = people[start : start + step]
            crops = np.stack([warp(image, region.matrix(), INPUT, None) for image, region in part])
            if self.alone:
                torch.set_num_threads(1)  # of this thread: OpenMP keeps a number for each
            rows = zip(*self._answers(torch.from_numpy(crops)), strict=True)
            found += [_measured(row, region) for row, (_, region) in zip(rows, part, strict=True)]
        return found

    def _seen(self, crops: Tensor) -> list[Tensor]:
        """Of (B, 256, 256, 3) uint8: the tensors of `Landmarks`, refined; of the heavy network then its features."""
        dtype = next(self.network.parameters()).dtype
        picture = crops.permute(0, 3, 1, 2).to(dtype) / 255
        features = self.network.encoder(picture.contiguous(memory_format=torch.channels_last))
        refined = [each.float() for each in self.network.read(features)]
        refined[0] = refine(refined[0], refined[3])
        return [*refined, *(each.half() for each in features if self.size == "heavy")]


def refine(points: Tensor, heatmaps: Tensor) -> Tensor:
    """(B, 39, 5) points with x and y moved to the middle of what their heat maps show about them."""
    cells = heatmaps.shape[-1]
    half = HEAT_WINDOW // 2
    cell = (points[..., :2] * (cells / INPUT)).trunc().long()  # x, y
    inside = ((cell >= 0) & (cell < cells)).all(-1)
    shares = F.pad(torch.sigmoid(heatmaps), (half, half, half, half))
    steps = torch.arange(HEAT_WINDOW, device=points.device)
    column, row = (cell[..., axis, None].clamp(0, cells - 1) + steps for axis in (0, 1))  # (B, 39, 7) in the padded map
    person, slot = (torch.arange(n, device=points.device) for n in points.shape[:2])
    window = shares[person[:, None, None, None], slot[:, None, None], row[..., :, None], column[..., None, :]]
    total = window.sum((-2, -1))
    # MediaPipe counts from a cell's corner.
    x = (window.sum(-2) * (column - half)).sum(-1) / total
    y = (window.sum(-1) * (row - half)).sum(-1) / total
    better = inside & (window.amax((-2, -1)) >= MIN_HEAT)
    place = torch.where(better[..., None], torch.stack([x, y], -1) * (INPUT / cells), points[..., :2])
    return torch.cat([place, points[..., 2:]], -1)


def _measured(row: tuple[Tensor, ...], region: Region) -> Measured:
    """A crop's answer in the image's pixels and axes."""
    count = len(Landmarks._fields)
    seen, features = Landmarks(*row[:count]), row[count:] or None
    matrix = region.matrix()
    places = np.linalg.solve(matrix[:, :2], seen.points[:, :2].double().numpy().T - matrix[:, 2:]).T
    turn = matrix[:, :2] * (region.side / INPUT)
    world = seen.world.double().numpy()
    world[:, :2] = world[:, :2] @ turn
    visibility = torch.sigmoid(seen.points[:BODY, 3]).numpy()
    following = Region.of_circle(places[CENTER], places[REACH], places[REACH] - places[CENTER])
    return Measured(
        region,
        np.column_stack([places[:BODY], visibility]),
        world[:BODY].astype(np.float32),
        float(seen.person),
        torch.sigmoid(seen.mask).numpy(),
        following,
        features,
        None if features is None else pose_features(seen, features, region.angle),
    )
