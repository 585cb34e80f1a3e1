"""The human parser that ships: a network that segments a window around the person into 20 labels and occluders.

A residual encoder and a feature pyramid (He et al. 2016; Lin et al. 2017). Keypoints and the detector's mask select
the person; the network was trained with either, both and neither of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dsr_fit.assets import shipped
from dsr_fit.camera import Crop
from dsr_fit.errors import InputError
from dsr_fit.io.files import check_file
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.labels import LABELS, MIRRORED_LABELS, OCCLUDER
from dsr_fit.observation import Detection
from dsr_fit.observe.crop import cut, put_back, window_around
from dsr_fit.threads import one_torch_thread

if TYPE_CHECKING:
    from dsr_fit.observe.parser import ParsingProtocol

CLASSES = len(LABELS) + 1
"""The 20 labels, and last the occluder."""

# Each point's slots: BODY_25 and MediaPipe fill the first block, COCO the second.
_SLOTS: dict[str, tuple[int, ...]] = {
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

POINTS = tuple(_SLOTS)
"""The network's input keypoints."""

_BONES = tuple(
    (POINTS.index(f"{side}_{a}"), POINTS.index(f"{side}_{b}"))
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("heel", "toe"))
) + tuple((POINTS.index(f"left_{joint}"), POINTS.index(f"right_{joint}")) for joint in ("shoulder", "hip"))

_OTHER_SIDE = {"left": "right", "right": "left"}
MIRRORED_POINTS = [POINTS.index("_".join(_OTHER_SIDE.get(word, word) for word in name.split("_"))) for name in POINTS]
_MIRRORED_GUIDES = MIRRORED_POINTS + [
    len(POINTS) + next(k for k, other in enumerate(_BONES) if {*other} == {MIRRORED_POINTS[a], MIRRORED_POINTS[b]})
    for a, b in _BONES
]

POINT_SPREAD, BONE_SPREAD = 0.02, 0.025
"""Standard deviation of a heatmap's bell, over the window's side."""

GUIDES = len(POINTS) + len(_BONES)
STRIDE = 32
"""The input's side must be a multiple of this."""

SIZE = 320
"""Side in pixels of the network's input."""

OUTSIDE = 127
"""Grey of what lies outside the image."""

PAPER_SCALES = (0.5, 0.75, 1.0, 1.5)
PAPER_LARGEST = 1080
"""DSR's supplementary: scales that are averaged, each with its mirror image; scale 1 alone for larger images. The
network's sides are multiples of 32, so that 0.75 of 320 px is 256 px."""

FINEST = 640
"""Labels are decided at up to this many pixels of the window's side, and enlarged from there."""

_MIRRORED = MIRRORED_LABELS[:CLASSES].astype(np.int64)


class NetworkParser:
    """Labels one person's pixels, and occluders of the person, within a window around the keypoints.

    The keypoints and the detector's mask, each of which may be missing, select the person.
    """

    def __init__(self, weights: Path | None = None, protocol: ParsingProtocol = "fast") -> None:
        """`weights`: a safetensors file, by default the one that ships. Raises InputError where it can't be used."""
        self.protocol: ParsingProtocol = protocol
        own = "open" if weights is None else weights.name
        self.name = own if protocol == "fast" else f"{own}, {protocol} protocol"
        self.network = load_network(weights or shipped("priors/parser/parser.safetensors"))

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) uint8 labels, 254 on occluders; background outside the window."""
        height, width = image.shape[:2]
        window = window_around(detection, (height, width))
        probabilities = self.probabilities(image, detection, window)
        side = min(FINEST, max(SIZE, round(window.side)))
        fine = F.interpolate(probabilities[None], (side, side), mode="bilinear", align_corners=False)[0]
        classes = fine.argmax(0).numpy().astype(np.uint8)
        labels = np.where(classes == CLASSES - 1, OCCLUDER, classes).astype(np.uint8)
        return put_back(labels, window, (height, width))

    @one_torch_thread()
    @torch.inference_mode()
    def probabilities(self, image: np.ndarray, detection: Detection, window: Crop) -> Tensor:
        """(21, S, S) probabilities of the window."""
        scales: tuple[float, ...] = (1.0,)
        if self.protocol == "paper" and max(image.shape[:2]) <= PAPER_LARGEST:
            scales = PAPER_SCALES
        total = torch.zeros(CLASSES, SIZE // 2, SIZE // 2)
        for scale in scales:
            size = STRIDE * round(scale * SIZE / STRIDE)
            inputs = network_input(image, detection, window, size)
            shares = self.network(*inputs).softmax(1)
            if self.protocol == "paper":
                other = self.network(*mirrored(*inputs)).softmax(1)
                shares = (shares + other.flip(-1)[:, _MIRRORED]) / 2
            total += F.interpolate(shares, total.shape[-2:], mode="bilinear", align_corners=False)[0]
        return total / len(scales)


def load_network(path: Path) -> ParserNetwork:
    """The network with the weights of a safetensors file. Raises InputError where they are not its weights."""
    check_file(path, "file of a parser's weights")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not readable weights of a parser ({' '.join(str(error).split())})") from None
    network = ParserNetwork()
    own = {name: value.shape for name, value in network.state_dict().items() if "num_batches_tracked" not in name}
    stored = {name: value.shape for name, value in weights.items()}
    wrong = sorted({name for name, _ in own.items() ^ stored.items()})
    if wrong:
        raise InputError(f"{path}: not the weights of this parser ({len(wrong)} arrays differ, {wrong[0]} for one)")
    network.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def network_input(image: np.ndarray, detection: Detection, window: Crop, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments of `ParserNetwork.forward` for one window at `size` pixels."""
    picture = cut(image, window, size, OUTSIDE)
    mask = np.zeros((size, size), np.uint8)
    if detection.person_mask is not None:
        mask = cut(np.rint(255 * detection.person_mask).astype(np.uint8), window, size, 0)
    points = point_array(detection.keypoints)
    points[:, :2] = (points[:, :2] - window.origin) / window.side
    outside = ((points[:, :2] < 0) | (points[:, :2] > 1)).any(1)
    points[outside | (points[:, 2] <= 0)] = 0
    return prepare(
        torch.from_numpy(picture)[None],
        torch.from_numpy(mask)[None],
        torch.tensor([detection.person_mask is not None]),
        torch.from_numpy(points)[None],
    )


def point_array(keypoints: np.ndarray) -> np.ndarray:
    """(49, 3) keypoints -> (21, 3) float32 in the order of `POINTS`, each from its more confident slot."""
    return keypoints[[max(slots, key=lambda slot: keypoints[slot, 2]) for slots in _SLOTS.values()]].astype(np.float32)


def heatmaps(points: Tensor, size: int) -> Tensor:
    """Bells around keypoints and along the bones between them.

    `points` (B, 21, 3): x, y over the window's side (0..1) and confidence, 0 where unseen, in the order of `POINTS`.
    Returns (B, `GUIDES`, size, size), heights by confidence.
    """
    centres = (torch.arange(size, dtype=points.dtype, device=points.device) + 0.5) / size
    pixels = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).flatten(0, 1)  # (S*S, 2)
    start = torch.cat([points, points[:, [a for a, _ in _BONES]]], 1)
    end = torch.cat([points, points[:, [b for _, b in _BONES]]], 1)
    axis = (end - start)[..., :2]
    along = (torch.einsum("pc,bnc->bnp", pixels, axis) - (start[..., :2] * axis).sum(-1, keepdim=True)) / (
        axis.square().sum(-1, keepdim=True).clamp(min=1e-8)
    )
    nearest = start[:, :, None, :2] + along.clamp(0, 1)[..., None] * axis[:, :, None]
    spread = points.new_tensor([POINT_SPREAD] * len(POINTS) + [BONE_SPREAD] * len(_BONES))
    squared = (pixels - nearest).square().sum(-1) / spread[:, None].square()
    height = torch.minimum(start[..., 2], end[..., 2])
    return (height[..., None] * torch.exp(-0.5 * squared)).unflatten(-1, (size, size))


def mirrored(picture: Tensor, mask: Tensor, guides: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network's input for the mirror image: left trades places with right."""
    return picture.flip(-1), mask.flip(-1), guides.flip(-1)[:, _MIRRORED_GUIDES]


def prepare(pictures: Tensor, masks: Tensor, mask_seen: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network's input from windows of images.

    `pictures` (B, S, S, 3) uint8 RGB; `masks` (B, S, S) uint8, 255 on the person; `mask_seen` (B,) bool, whether there
    is a mask; `points` (B, 21, 3) as `heatmaps` takes them. Returns `ParserNetwork.forward`'s arguments.
    """
    picture = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    mask = (masks.float() / 127.5 - 1) * mask_seen[:, None, None]
    return picture, mask[:, None], heatmaps(points, pictures.shape[1] // 4)


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _conv(channels, out, stride)
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        changed = stride != 1 or channels != out
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if changed
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def _conv(channels: int, out: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    padding = size // 2
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride, padding, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class ParserNetwork(nn.Module):
    """(picture, mask, heatmaps) -> logits at half the input's resolution."""

    def __init__(self, widths: tuple[int, int, int, int] = (64, 128, 192, 256), pyramid: int = 96) -> None:
        super().__init__()
        half = widths[0] // 2
        self.stem = _conv(4, half, 2)
        self.entry = _conv(half, widths[0], 2)
        self.guide = _conv(widths[0] + GUIDES, widths[0], size=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                _Block(before, after, 1 if before == after else 2), *(_Block(after, after) for _ in range(count - 1))
            )
            for before, after, count in zip((widths[0], *widths[:-1]), widths, (2, 3, 3, 2), strict=True)
        )
        self.context = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 1), nn.ReLU(inplace=True))
        self.lateral = nn.ModuleList(nn.Conv2d(width, pyramid, 1) for width in widths)
        self.smooth = nn.ModuleList(_conv(pyramid, pyramid) for _ in widths[:-1])
        self.fine = _conv(pyramid + half, 48, size=1)
        self.last = nn.Sequential(_conv(48, 48), nn.Conv2d(48, CLASSES, 1))

    def forward(self, picture: Tensor, mask: Tensor, guides: Tensor) -> Tensor:
        """Logits (B, `CLASSES`, S/2, S/2).

        `picture` (B, 3, S, S) RGB, -1..1; `mask` (B, 1, S, S): -1 nobody, 1 the person, all 0 where there is none;
        `guides` (B, `GUIDES`, S/4, S/4), all 0 where there are no keypoints.
        """
        half = self.stem(torch.cat([picture, mask], 1))
        x = self.guide(torch.cat([self.entry(half), guides], 1))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        x = x + self.context(x.mean((2, 3), keepdim=True))
        merged = self.lateral[-1](x)
        for level in range(len(self.smooth) - 1, -1, -1):
            merged = F.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=False)
            merged = self.smooth[level](merged + self.lateral[level](features[level]))
        merged = F.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.last(self.fine(torch.cat([merged, half], 1)))
