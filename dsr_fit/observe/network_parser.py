"""The human parser that ships: the network of `perception.network` on a window around the person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.camera import Crop
from dsr_fit.errors import InputError
from dsr_fit.labels import MIRRORED_LABELS, OCCLUDER
from dsr_fit.observation import Detection
from dsr_fit.observe.crop import cut, put_back, window_around
from dsr_fit.observe.limbs import point_array
from dsr_fit.observe.parser import ParsingProtocol
from dsr_fit.observe.parser_network import CLASSES, STRIDE, ParserNetwork, mirrored, prepare

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
    """Labels one person's pixels, and what stands before the person, within a window around the keypoints.

    Who is meant is told by the keypoints and the detector's mask, each of which may be missing.
    """

    def __init__(self, weights: Path | None = None, protocol: ParsingProtocol = "fast") -> None:
        """`weights`: a safetensors file, by default the one that ships. Raises InputError where it can't be used."""
        self.protocol: ParsingProtocol = protocol
        own = "open" if weights is None else weights.name
        self.name = own if protocol == "fast" else f"{own}, {protocol} protocol"
        self.network = load_network(weights or shipped("priors/parser/parser.safetensors"))

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) uint8 labels, 254 on what stands before the person; background outside the window."""
        height, width = image.shape[:2]
        window = window_around(detection, (height, width))
        probabilities = self.probabilities(image, detection, window)
        side = min(FINEST, max(SIZE, round(window.side)))
        fine = F.interpolate(probabilities[None], (side, side), mode="bilinear", align_corners=False)[0]
        classes = fine.argmax(0).numpy().astype(np.uint8)
        labels = np.where(classes == CLASSES - 1, OCCLUDER, classes).astype(np.uint8)
        return put_back(labels, window, (height, width))

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
            looks = self.network(*inputs).softmax(1)
            if self.protocol == "paper":
                other = self.network(*mirrored(*inputs)).softmax(1)
                looks = (looks + other.flip(-1)[:, _MIRRORED]) / 2
            total += F.interpolate(looks, total.shape[-2:], mode="bilinear", align_corners=False)[0]
        return total / len(scales)


def load_network(path: Path) -> ParserNetwork:
    """The network with the weights of a safetensors file. Raises InputError where they are not its weights."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not readable weights of a parser ({' '.join(str(error).split())})") from None
    network = ParserNetwork()
    own = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if wrong:
        raise InputError(f"{path}: not the weights of this parser ({len(wrong)} arrays differ, {wrong[0]} for one)")
    network.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def network_input(image: np.ndarray, detection: Detection, window: Crop, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `ParserNetwork.forward` takes, for one window at `size` pixels."""
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
