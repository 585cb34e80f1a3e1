"""The human parser that ships: 20 labels, other people and occluders, from what the landmark network saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dsr_fit.assets import shipped
from dsr_fit.boxes import area, keypoint_box
from dsr_fit.io.files import check_file
from dsr_fit.joints import coco_keypoints
from dsr_fit.observation import Detection, Look
from dsr_fit.observe.blazepose import INPUT
from dsr_fit.observe.crop import seen_part, warp, window_around
from dsr_fit.observe.device_batches import batched
from dsr_fit.observe.label_kernels import decide
from dsr_fit.observe.landmarks import MIN_KEYPOINT, LandmarkNetwork, Region
from dsr_fit.observe.layers import with_weights
from dsr_fit.observe.oks import COCO_IN_BLAZEPOSE, similarity
from dsr_fit.observe.parsing_network import (
    CLASS_LABELS,
    MIRRORED_CLASSES,
    ParsingDecoder,
    mirrored_points,
    point_array,
)
from dsr_fit.threads import made_once, one_torch_thread

if TYPE_CHECKING:
    from dsr_fit.observe.parser import ParsingProtocol

PAPER_SCALES = (0.5, 0.75, 1.0, 1.5)
PAPER_LARGEST = 1080
"""DSR's supplementary: scales that are averaged, each with its mirror image; scale 1 alone for larger images."""

SAME_PERSON = 0.3
"""OKS of keypoints from elsewhere and the landmark network's from which on its mask is of the same person."""


class NetworkParser:
    """Labels one person's pixels, other people, and what is in front of the person.

    It goes on from the detector's look at the person; for keypoints from elsewhere it looks for itself.
    """

    def __init__(
        self,
        weights: Path | None = None,
        protocol: ParsingProtocol = "fast",
        device: str = "cpu",
        batch: int | None = None,
    ) -> None:
        """`weights`: a safetensors file, by default the one that ships; `batch`: see `device_batches.batched`.

        Several threads may use one parser. Raises InputError where the weights can't be used.
        """
        self.protocol: ParsingProtocol = protocol
        own = "open" if weights is None else weights.name
        self.name = own if protocol == "fast" else f"{own}, {protocol} protocol"
        self.decoder = fused(read_decoder(weights)).to(device)
        self.device, self.batch = device, batch
        self._classified = batched(self._seen, device, batch)

    @made_once
    def landmarks(self) -> LandmarkNetwork:
        return LandmarkNetwork("heavy", device=self.device, batch=self.batch)

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) uint8 labels, 253 on other people, 254 on occluders; background outside the look's crop."""
        look = detection.look or self._look(image, detection)
        logits = self.logits(image, detection.keypoints, look)
        return CLASS_LABELS[classes_at(logits, look.matrix, (image.shape[0], image.shape[1]))]

    @one_torch_thread()
    @torch.inference_mode()
    def logits(
        self, image: np.ndarray, keypoints: np.ndarray, look: Look, protocol: ParsingProtocol | None = None
    ) -> Tensor:
        """(22, 128, 128) logits of the classes in the look's crop.

        `keypoints`: (49, 3); `protocol`: the parser's own by default.
        """
        points = point_array(keypoints)
        points[:, :2] = (points[:, :2] @ look.matrix[:, :2].T + look.matrix[:, 2]) / INPUT
        points[points[:, 2] <= 0] = 0
        others = np.zeros_like(look.mask) if look.others is None else look.others.astype(np.float32)
        told = torch.from_numpy(points)[None], torch.from_numpy(np.stack([look.mask, others]))[None]
        if (protocol or self.protocol) == "fast" or max(image.shape[:2]) > PAPER_LARGEST:
            features = [each[None] for each in look.features]
            return self._classified(_picture(image, look.matrix, INPUT), *told, *features)[0][0]
        total = torch.zeros(len(CLASS_LABELS), INPUT // 2, INPUT // 2)
        for scale in PAPER_SCALES:
            size = round(scale * INPUT)
            picture = _picture(image, look.matrix, size)
            masks = F.interpolate(told[1], (size, size), mode="bilinear", align_corners=False)
            for flipped in (False, True):
                seen = picture.flip(2) if flipped else picture
                hints = (mirrored_points(told[0]), masks.flip(-1)) if flipped else (told[0], masks)
                (logits,) = self._classified(seen, *hints)
                if flipped:
                    logits = logits.flip(-1)[:, MIRRORED_CLASSES]
                total += F.interpolate(logits, total.shape[-2:], mode="bilinear", align_corners=False)[0]
        return total / (2 * len(PAPER_SCALES))

    def _seen(self, pictures: Tensor, points: Tensor, masks: Tensor, *features: Tensor) -> list[Tensor]:
        """(B, 22, S/2, S/2) logits of (B, S, S, 3) uint8; without the landmark network's features they are taken."""
        picture = (pictures.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        known = [each.float() for each in features] or self.landmarks.network.encoder(picture)
        return [self.decoder(picture, known, points, masks)]

    def _look(self, image: np.ndarray, detection: Detection) -> Look:
        """A look at a person whom the landmark network hasn't seen, or only the smaller one."""
        keypoints = coco_keypoints(detection.keypoints)
        if (keypoints[:, 2] > MIN_KEYPOINT).any():
            region = Region.of_keypoints(keypoints, keypoint_box(detection.keypoints))
        else:
            window = window_around(detection, (image.shape[0], image.shape[1]))
            region = Region(window.center, window.side, 0.0)
        (seen,) = self.landmarks.look([(image, region)])
        assert seen.features is not None
        matrix = seen.region.matrix()
        if detection.person_mask is not None:
            mask = warp(detection.person_mask, matrix, INPUT, 0)
        else:
            size = 0.5 * area(keypoint_box(detection.keypoints))
            points = seen.points[COCO_IN_BLAZEPOSE]
            points[:, 2] = 1  # guesses count: a network that sees nobody guesses somewhere
            agreed = similarity(keypoints, points, size) > SAME_PERSON
            mask = seen.mask if agreed and seen.presence > 0.5 else np.zeros_like(seen.mask)
        others = None if detection.others is None else warp(detection.others.astype(np.uint8), matrix, INPUT, 0) > 0
        return Look(matrix, seen.features, mask.astype(np.float32), others)


def classes_at(logits: Tensor, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: at each pixel of an image the class of the largest logit, 0 outside the crop.

    `logits` (C, S, S), interpolated between the crop's cells; `matrix` (2, 3) leads to the crop at `INPUT` pixels.
    """
    size = logits.shape[-1]
    matrix = matrix * (size / INPUT)
    left, top, right, bottom = seen_part(matrix, size, shape)
    full = np.zeros(shape, np.uint8)
    best = logits.argmax(0).to(torch.uint8).numpy()
    rows = np.ascontiguousarray(logits.permute(1, 2, 0).numpy())
    decide(rows, best, matrix.astype(np.float64), left, top, full[top:bottom, left:right])
    return full


def _picture(image: np.ndarray, matrix: np.ndarray, size: int) -> Tensor:
    """(1, size, size, 3) uint8; `matrix` leads to the crop at `INPUT` pixels."""
    return torch.from_numpy(warp(image, matrix * (size / INPUT), size, None))[None]


def read_decoder(weights: Path | None = None) -> ParsingDecoder:
    """The decoder with a safetensors file's weights, by default those that ship; its batch norms are not yet folded.

    Raises InputError where the file can't be read, or holds other weights.
    """
    path = weights or shipped("priors/parser/parser.safetensors")
    check_file(path, "file of a parser's weights")
    return with_weights(ParsingDecoder, path)


def fused(network: nn.Module) -> nn.Module:
    """The network with each batch norm folded into the convolution before it."""
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(norm := module[1], nn.BatchNorm2d):
            conv = module[0]
            assert isinstance(conv, nn.Conv2d)
            module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
