"""Pseudo-labels to train a regressor on: from a folder of `dsr-fit batch`, or from SPIN's or DSR's `.npz`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, ray_rotation, translation_from_keypoints
from dsr_fit.dataset.names import file_name, path_of_own
from dsr_fit.dataset.records import unpack_labels
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.shards import open_store
from dsr_fit.errors import InputError
from dsr_fit.io.images import image_size, read_image
from dsr_fit.io.label_files import keep_own_labels, read_labels
from dsr_fit.io.spin_file import SCALE_PIXELS, FullCamera, SpinFile, read_spin
from dsr_fit.joints import MIN_KEYPOINTS
from dsr_fit.labels import UNKNOWN
from dsr_fit.observe.batch import crop_camera_of
from dsr_fit.observe.checks import MAX_CONFIDENCE

LABEL_FOLDER = "grph_sequences"
"""Beside a `.npz`: DSR's label maps, `IMGNAME.png` in Graphonomy's colours."""

SMPL_VERTICES = 6890
BATCH = 256


@dataclass(frozen=True)
class PseudoLabels:
    """N people: the observations of each, and the body that was fitted to them."""

    images: Path
    """Folder that `imgname` is relative to; a name may climb out of it, or be absolute, as those of a run may."""
    imgname: tuple[str, ...]
    keypoints: np.ndarray
    """(N, 49, 3) float32 pixels and confidence, 0 where unobserved."""
    world: np.ndarray
    """(N, 49, 4) float32 metres about the mid-hip, axes of the image's camera, and confidence; 0 without."""
    full_pose: np.ndarray
    """(N, 72) float32 axis-angle, camera frame of the full image."""
    betas: np.ndarray
    """(N, 10) float32"""
    cam_t: np.ndarray
    """(N, 3) float32 metres"""
    intrinsics: np.ndarray
    """(N, 3) float32 focal length, cx, cy: pixels of the camera that pose, translation and `world` are seen by."""
    image_size: np.ndarray
    """(N, 2) int, width, height."""
    has_body: np.ndarray
    """(N,) bool: whether the parameters may be trained on: they belong to the trained body, and the gate agrees."""
    quality: np.ndarray
    """(N,) float32 0..1, the gate's probability that the fit is good; 1 where unknown."""
    accepted: np.ndarray
    """(N,) bool: accepted by the gate; all of a `.npz`, which has no verdicts."""
    unjudged: np.ndarray
    """(N,) bool: fits of `dsr-fit batch` for which no gate is calibrated; none of them is accepted."""
    label_maps: tuple[bytes | Path | None, ...]
    """PNG of each person's label map, read by `labels`; None where there is none."""

    def __len__(self) -> int:
        return len(self.imgname)

    def rows(self, index: np.ndarray | list[int]) -> PseudoLabels:
        """The people of these row numbers, in that order, or of a (N,) bool mask."""
        chosen = np.arange(len(self))[index]
        columns = {name: value for name, value in vars(self).items() if name != "images"}
        return replace(
            self,
            **{
                name: value[chosen] if isinstance(value, np.ndarray) else tuple(value[row] for row in chosen)
                for name, value in columns.items()
            },
        )

    def parameters(self, rows: np.ndarray | list[int]) -> Parameters:
        """The fitted bodies of these rows, in the frame of `intrinsics`."""
        pose, betas, cam_t = (torch.from_numpy(value[rows]) for value in (self.full_pose, self.betas, self.cam_t))
        return Parameters(pose[:, :3], pose[:, 3:], betas, cam_t)

    def crop(self, row: int) -> Crop:
        """The square around the person's keypoints, as a fit and a regressor see it."""
        return Crop.around(self.keypoints[row])

    def image(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises InputError where it can't be read, or has another size than the labels say."""
        path = self.images / self.imgname[row]
        image, _ = read_image(path)
        if image.shape[1::-1] != tuple(self.image_size[row]):
            was, now = ("x".join(map(str, size)) for size in (self.image_size[row], image.shape[1::-1]))
            raise InputError(f"{path}: is {now} pixels, its labels were made for {was}; name their folder of images")
        return image

    def labels(self, row: int) -> np.ndarray:
        """(H, W) uint8 of the one person, indices 0..19, 254 occluder, 255 unknown; all unknown without a map.

        Raises InputError where a file can't be read.
        """
        width, height = (int(length) for length in self.image_size[row])
        packed = self.label_maps[row]
        if packed is None:
            return np.full((height, width), UNKNOWN, np.uint8)
        if isinstance(packed, bytes):
            return unpack_labels(packed)
        keypoints = self.keypoints[row]
        return keep_own_labels(read_labels(packed, (width, height)), keypoints, Crop.around(keypoints).side)


def read_pseudo_labels(path: Path, body: Body, images: Path | None = None) -> PseudoLabels:
    """Everybody with a fit in a folder of `dsr-fit batch`, or with keypoints in a SPIN or DSR `.npz`.

    Args:
        body: what is trained for.
        images: folder that names are relative to; default: where the run found them, or the `.npz`'s own folder.
    Raises: InputError where it can't be read, is empty, or was fitted with another body.
    """
    if path.is_dir():
        labels = _of_shards(path, body, images)
    elif path.suffix == ".npz":
        labels = _of_spin(path, body, (images or path.parent).absolute())
    else:
        raise InputError(f"{path}: no labels to train on; a folder of `dsr-fit batch` or a SPIN .npz works")
    if not len(labels):
        raise InputError(f"{path}: holds nobody to train on")
    return labels


def _of_shards(folder: Path, body: Body, images: Path | None) -> PseudoLabels:
    store = open_store(folder)
    rows = [row for row in store.rows() if row["status"] != "failed"]
    for row in rows:
        if row["body"][1] != body.sha256:
            raise InputError(
                f"{folder}: was fitted with the body {row['body'][0]!r} ({row['body'][1][:12]}), the training is of "
                f"{body.name!r} ({body.sha256[:12]}); fit again with --body, or train for that one"
            )
    return PseudoLabels(
        images=(images or Path(store.manifest.images)).absolute(),
        imgname=tuple(file_name(row["imgname"]) for row in rows),
        keypoints=_stacked((row["keypoints"] for row in rows), 49, 3),
        world=_stacked((_in_camera_axes(row) for row in rows), 49, 4),
        full_pose=_stacked((np.concatenate([row["global_orient"], row["body_pose"]]) for row in rows), 72),
        betas=_stacked((row["betas"] for row in rows), 10),
        cam_t=_stacked((row["cam_t"] for row in rows), 3),
        intrinsics=_stacked((np.array([row["focal_length"], *row["principal_point"]]) for row in rows), 3),
        image_size=_stacked((row["image_size"] for row in rows), 2).astype(int),
        has_body=np.ones(len(rows), bool),
        quality=_stacked(1.0 if row["quality"] is None else row["quality"] for row in rows),
        accepted=np.array([row["status"] == "accepted" for row in rows], bool),
        unjudged=np.array([row["status"] == "unjudged" for row in rows], bool),
        label_maps=tuple(row["labels"] for row in rows),
    )


def _in_camera_axes(row: Row) -> np.ndarray:
    """(49, 4) the detector's landmarks, which are seen along the ray to its crop's centre, in the image's axes."""
    if row["world_landmarks"] is None:
        return np.zeros((49, 4), np.float32)
    return _turned(row["world_landmarks"], Crop.around(row["keypoints"]), row["focal_length"], row["principal_point"])


def _turned(world: np.ndarray, crop: Crop, focal: float, center: np.ndarray) -> np.ndarray:
    """(49, 4) landmarks that are seen along the ray to a crop's centre, in the axes of the image's camera."""
    turn = ray_rotation(crop, float(focal), (float(center[0]), float(center[1]))).numpy()
    return np.concatenate([world[:, :3] @ turn, world[:, 3:]], 1)


def _of_spin(path: Path, body: Body, images: Path) -> PseudoLabels:
    """Rows with fewer than `MIN_KEYPOINTS` keypoints are left out: there is nothing to cut a crop around."""
    file = read_spin(path)
    keypoints = _keypoints(file)
    chosen = np.flatnonzero((keypoints[..., 2] > 0.2).sum(1) >= MIN_KEYPOINTS)
    if len(chosen) < len(file):
        logging.getLogger("dsr_fit").warning("%s: %d rows without keypoints left out", path, len(file) - len(chosen))
    keypoints = keypoints[chosen]
    known = np.zeros(len(chosen), bool)
    pose, betas, cam_t = np.zeros((len(chosen), 72)), np.zeros((len(chosen), 10)), np.zeros((len(chosen), 3))
    if file.pose is not None and file.betas is not None and body.num_vertices == SMPL_VERTICES:
        known = file.has_smpl[chosen] & np.isfinite(file.pose[chosen]).all(1) & np.isfinite(file.betas[chosen]).all(1)
        pose, betas = (np.where(known[:, None], values[chosen], 0) for values in (file.pose, file.betas))
    full = file.full
    names = tuple(file.imgname[row] for row in chosen)
    if full is None:
        focals = SCALE_PIXELS * file.scale[chosen] * crop_camera_of(Crop((0, 0), 1))[0]
        intrinsics = np.column_stack([focals, file.center[chosen]])
        cam_t[known] = _translations(body, pose[known], betas[known], keypoints[known], intrinsics[known])
        sizes = _sizes(images, names)
    else:
        pose[known, :3], cam_t[known] = full.global_orient[chosen][known], full.cam_t[chosen][known]
        intrinsics = np.column_stack([full.focal_length, full.principal_point])[chosen]
        sizes = full.image_size[chosen]
    maps = {name: path_of_own(path.parent / LABEL_FOLDER, name, ".png") for name in dict.fromkeys(names)}
    maps = {name: file if file.is_file() else None for name, file in maps.items()}
    return PseudoLabels(
        images=images,
        imgname=names,
        keypoints=keypoints,
        world=_world(file, full)[chosen],
        full_pose=pose.astype(np.float32),
        betas=betas.astype(np.float32),
        cam_t=cam_t.astype(np.float32),
        intrinsics=intrinsics.astype(np.float32),
        image_size=sizes.astype(int),
        has_body=known,
        quality=np.ones(len(chosen), np.float32),
        accepted=np.ones(len(chosen), bool),
        unjudged=np.zeros(len(chosen), bool),
        label_maps=tuple(maps[name] for name in names),
    )


def _keypoints(file: SpinFile) -> np.ndarray:
    """(N, 49, 3) `openpose` and `part`; what isn't finite is unobserved."""
    if file.part is None and file.openpose is None:
        raise InputError(f"{file.path}: has no keypoints, neither `openpose` nor `part`; it can't be trained on")
    blocks = [np.zeros((len(file), 25, 3)) if file.openpose is None else file.openpose]
    blocks.append(np.zeros((len(file), 24, 3)) if file.part is None else file.part)
    keypoints = np.concatenate(blocks, 1)
    too_sure = np.flatnonzero((keypoints[..., 2] > MAX_CONFIDENCE).any(1))
    if len(too_sure):
        raise InputError(
            f"{file.path}: row {too_sure[0]} has a confidence of {np.nanmax(keypoints[too_sure[0], :, 2]):.6g}; "
            f"0 to 1 work, and up to {MAX_CONFIDENCE:g} count as 1"
        )
    keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
    usable = np.isfinite(keypoints).all(2) & (keypoints[..., 2] > 0)
    return np.where(usable[..., None], keypoints, 0).astype(np.float32)


def _world(file: SpinFile, full: FullCamera | None) -> np.ndarray:
    """(N, 49, 4) `S`, which is seen along the crop's ray, in the axes of the labels' camera."""
    world = np.zeros((len(file), 49, 4), np.float32)
    if file.joints is None:
        return world
    usable = np.isfinite(file.joints).all(2) & (file.joints[..., 3] > 0)
    world[:, 25:] = np.where(usable[..., None], file.joints, 0)
    if full is not None:
        for row, (center, scale) in enumerate(zip(file.center, file.scale, strict=True)):
            crop = Crop((float(center[0]), float(center[1])), SCALE_PIXELS * float(scale))
            world[row] = _turned(world[row], crop, full.focal_length[row], full.principal_point[row])
    return world


def _translations(
    body: Body, pose: np.ndarray, betas: np.ndarray, keypoints: np.ndarray, intrinsics: np.ndarray
) -> np.ndarray:
    """(N, 3) where each body's keypoints project nearest to the observed ones."""
    body = body.to("cpu")
    found = [np.zeros((0, 3))]
    for start in range(0, len(pose), BATCH):
        part = slice(start, start + BATCH)
        posed = torch.from_numpy(pose[part]).float()
        points = body(posed[:, :3], posed[:, 3:], torch.from_numpy(betas[part]).float(), torch.zeros(len(posed), 3))
        observed = torch.from_numpy(keypoints[part]).double()
        camera = torch.from_numpy(intrinsics[part][:, [0, 0, 1, 2]]).double()
        weights = observed[..., 2] * body.skeleton.keypoint_valid
        found.append(translation_from_keypoints(points.keypoints.double(), observed[..., :2], weights, camera).numpy())
    return np.concatenate(found)


def _sizes(images: Path, names: tuple[str, ...]) -> np.ndarray:
    """(N, 2) width and height as the images are seen, from their headers."""
    try:
        sizes = {name: image_size(images / name) for name in dict.fromkeys(names)}
    except InputError as error:
        raise InputError(f"{error}; name the folder of the images with --images") from None
    return np.array([sizes[name] for name in names]).reshape(-1, 2)


def _stacked(values: Iterable[Any], *shape: int) -> np.ndarray:
    """(N, *shape) float32, also of none."""
    return np.array(list(values), np.float32).reshape(-1, *shape)
