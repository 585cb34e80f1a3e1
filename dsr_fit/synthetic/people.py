"""Generate a clothed person from a seed: pose, shape, camera, garments, scene and ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree

from dsr_fit.body.parameters import Parameters
from dsr_fit.joints import KEYPOINTS_49
from dsr_fit.labels import LABEL_INDEX, OCCLUDER, OTHER_PERSON
from dsr_fit.synthetic import occluders, render, shading, staging
from dsr_fit.synthetic.backdrop import paint_backdrop
from dsr_fit.synthetic.dressing import dress
from dsr_fit.synthetic.garments import Piece
from dsr_fit.synthetic.paint import random_look, random_occluder_look
from dsr_fit.synthetic.render import Scene
from dsr_fit.synthetic.staging import Camera, Casting, Placed, ViewName
from dsr_fit.synthetic.wardrobe import random_outfit

CLOTH = {LABEL_INDEX[name]: name for name in ("upperclothes", "dress", "coat", "pants", "skirt")}
MOST_HIDDEN = 0.5  # of the person; occluders that hide more are placed again
MAIN, SECOND, OCCLUDING = 0, 1, 2
LIMB_RADII = (  # metres, by parts of keypoints' names
    (0.05, ("Nose", "Eye", "Ear", "Jaw")),
    (0.17, ("Hip", "Pelvis", "Thorax", "Spine", "Neck", "Head", "Shoulder")),
    (0.10, ("",)),
)


@dataclass(frozen=True)
class ClothedCase:
    """An image of a clothed person and its ground truth.

    Camera frame: x right, y down, z forward, metres; the principal point is the image centre.
    """

    seed: int
    image: np.ndarray  # (H, W, 3) uint8 RGB; black if not painted
    global_orient: np.ndarray  # (3,) float32 axis-angle, camera frame
    body_pose: np.ndarray  # (69,) float32 axis-angle
    betas: np.ndarray  # (10,) float32
    cam_t: np.ndarray  # (3,) float32 metres
    focal_length: float  # pixels
    vertices: np.ndarray  # (V, 3) float32 of the open body, with cam_t
    joints: np.ndarray  # (49, 3) float32 keypoints, with cam_t
    keypoint_visibility: np.ndarray
    """(49,) bool: in the frame, and not hidden by anything but the person's own nearby surface."""
    body_mask: np.ndarray  # (H, W) bool: the unclothed body, ignoring occluders
    clothed_mask: np.ndarray  # (H, W) bool: the person with clothes, hair and shoes, ignoring occluders
    labels: np.ndarray
    """(H, W) uint8: the 20 labels where this person is visible; 254 on objects and people in front of any part of this
    person; 255 on bare bellies, which have no label; else background."""
    looseness: float  # metres: mean distance of garments from the body, over their visible pixels
    looseness_by_label: dict[str, float]  # the same for each visible garment label
    view: ViewName
    occluded: str | None  # kind of the occluder in front of the person
    second_person: bool
    cropped: bool
    garments: tuple[str, ...]  # entries of `wardrobe.KINDS`
    clip: str  # the motion clip of the pose
    backdrop: str  # kind of background; empty if not painted

    def parameters(self) -> Parameters:
        """The true parameters, a batch of 1."""
        values = (self.global_orient, self.body_pose, self.betas, self.cam_t)
        return Parameters(*(torch.from_numpy(value)[None] for value in values))

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels."""
        height, width = self.labels.shape
        return self.focal_length, self.focal_length, width / 2, height / 2

    @property
    def keypoints(self) -> np.ndarray:
        """(49, 3) float32 true pixels, and confidence 1 where visible, else 0."""
        focal, _, cx, cy = self.intrinsics
        pixels = self.joints[:, :2] / self.joints[:, 2:] * focal + (cx, cy)
        return np.concatenate([pixels, self.keypoint_visibility[:, None]], 1).astype(np.float32)


def generate(seed: int, casting: Casting | None = None, *, painted: bool = True, others: bool = False) -> ClothedCase:
    """The clothed person of this seed, the same on every call.

    Without `painted` the image is black, and the rest takes a third of the time. With `others` the labels have 253 on a
    second person, before or behind this one, as a parser sees it; the truth is 254 before, and background behind.
    """
    casting = casting or Casting()

    def stream(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, number])

    rng = stream(0)
    stance = staging.random_stance(rng, casting)
    betas = rng.normal(size=10).astype(np.float32)
    with_second, with_occluder, cropped = rng.uniform() < 0.2, rng.uniform() < 0.21, rng.uniform() < 0.15
    placed, camera = staging.stage(stance, betas, cropped, stream(1), casting)
    outfit = random_outfit(stream(2), stance.roomy)
    groups: list[list[Piece]] = [dress(placed.wearer, outfit, stream(3)), [], []]
    occluded: str | None = None
    body = placed.wearer.vertices
    if with_second:
        groups[SECOND] = _second_person(camera, placed, stream(7), casting)
    if with_occluder:
        groups[OCCLUDING], occluded = _occluder(camera, placed, stream(8))

    scene = render.assemble(groups)
    alone = render.assemble([groups[MAIN]])
    pixels = _pixel_truth(camera, scene, alone, others)
    image, backdrop = np.zeros((camera.height, camera.width, 3), np.uint8), ""
    if painted:
        image, backdrop = _painted(camera, scene, stream)
    looseness, by_label = _looseness(camera, alone, placed)
    body_mask = render.triangle_ids(camera, body, staging.body_faces(), 1) > 0
    return ClothedCase(
        seed=seed,
        image=image,
        global_orient=placed.global_orient,
        body_pose=stance.body_pose.astype(np.float32),
        betas=betas,
        cam_t=placed.cam_t,
        focal_length=camera.focal,
        vertices=body.astype(np.float32),
        joints=placed.keypoints,
        keypoint_visibility=visible_keypoints(
            camera, placed.keypoints, pixels.depth, np.isin(pixels.labels, (OTHER_PERSON, OCCLUDER))
        ),
        body_mask=body_mask,
        clothed_mask=pixels.clothed,
        labels=pixels.labels,
        looseness=looseness,
        looseness_by_label=by_label,
        view=stance.view,
        occluded=occluded,
        second_person=with_second,
        cropped=cropped,
        garments=outfit.kinds,
        clip=stance.clip,
        backdrop=backdrop,
    )


def _painted(camera: Camera, scene: Scene, stream: Callable[[int], np.random.Generator]) -> tuple[np.ndarray, str]:
    """The image (H, W, 3) uint8 of the lit scene, and the kind of its backdrop."""
    looks = [random_look(stream(4)), random_look(stream(5)), random_occluder_look(stream(6))]
    lights = shading.random_lights(stream(9), camera.down)
    shadow = shading.shadow_map(scene.vertices, scene.faces, lights.key)
    key_share = float((lights.key_colour / (lights.key_colour + lights.sky)).mean() * lights.key @ -camera.down)
    background, backdrop = paint_backdrop(camera, stream(10), shadow, min(max(key_share, 0.0), 0.75))
    picture = render.compose(camera, scene, looks, lights, shadow, background)
    return through_lens(picture, stream(11)), backdrop


def _second_person(camera: Camera, main: Placed, rng: np.random.Generator, casting: Casting) -> list[Piece]:
    """Another dressed person, hiding at most half of the first."""
    for _ in range(6):
        placed, stance, _ = staging.companion(camera, main, rng, casting)
        if _hidden_share(camera, main, placed.wearer.vertices, staging.body_faces()) < MOST_HIDDEN:
            break
    return dress(placed.wearer, random_outfit(rng, stance.roomy), rng)


def _occluder(camera: Camera, main: Placed, rng: np.random.Generator) -> tuple[list[Piece], str | None]:
    """An occluder that hides 3 % to half of the person, and its kind; none if eight tries fail."""
    for _ in range(8):
        pieces, kind = occluders.occluder(camera, main.wearer.vertices, rng)
        scene = render.assemble([pieces])
        if 0.03 < _hidden_share(camera, main, scene.vertices, scene.faces) < MOST_HIDDEN:
            return pieces, kind
    return [], None


def _hidden_share(camera: Camera, main: Placed, vertices: np.ndarray, faces: np.ndarray) -> float:
    """Fraction of the main body that the mesh hides, at low resolution."""
    small = replace(camera, width=camera.width // 6, height=camera.height // 6, focal=camera.focal / 6)
    body_faces = staging.body_faces()
    alone = render.triangle_ids(small, main.wearer.vertices, body_faces, 1) > 0
    count = len(main.wearer.vertices)
    both = render.triangle_ids(
        small,
        np.concatenate([main.wearer.vertices, vertices]),
        np.concatenate([body_faces, faces.astype(np.int32) + count]).astype(np.int32),
        1,
    )
    hidden = alone & (both > len(body_faces))
    return float(hidden.sum() / max(alone.sum(), 1))


@dataclass(frozen=True)
class _PixelTruth:
    """Ground truth at the pixel centres of the full-resolution image."""

    labels: np.ndarray  # (H, W) uint8
    clothed: np.ndarray  # (H, W) bool
    depth: np.ndarray  # (H, W) float32 metres, inf on the background


def _pixel_truth(camera: Camera, scene: Scene, alone: Scene, others: bool) -> _PixelTruth:
    shape = (camera.height, camera.width)
    ids = render.triangle_ids(camera, scene.vertices, scene.faces, 1)
    pixels = render.look_up(camera, scene, ids, 1)
    figure = np.full(shape, -1)
    figure.flat[pixels.index] = scene.figure[pixels.piece]
    labels = np.zeros(shape, np.uint8)
    labels.flat[pixels.index] = render.labels_of(scene, pixels)
    depth = np.full(shape, np.inf, np.float32)
    depth.flat[pixels.index] = pixels.position[:, 2]
    clothed = render.triangle_ids(camera, alone.vertices, alone.faces, 1) > 0
    for other in (SECOND, OCCLUDING):
        there = figure == other
        # All of an occluder in front is unknown, not only where it covers the person.
        in_front = bool((there & clothed).any())
        labels[there] = OTHER_PERSON if others and other == SECOND else OCCLUDER if in_front else 0
    return _PixelTruth(labels, clothed, depth)


def visible_keypoints(camera: Camera, keypoints: np.ndarray, depth: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """(49,) bool of keypoints (49, 3) in the camera frame: in the frame, and not hidden by anything but the person's
    own nearby surface; a keypoint lies inside the body, at most its limb's radius behind the surface.

    `depth` (H, W) metres of what is seen; `hidden` (H, W) bool where something is in front of the person.
    """
    radius = np.array([next(r for r, parts in LIMB_RADII if any(p in name for p in parts)) for name in KEYPOINTS_49])
    pixel = np.floor(camera.project(keypoints)).astype(int)
    inside = ((pixel >= 0) & (pixel < [camera.width, camera.height])).all(1) & (keypoints[:, 2] > 0)
    j, i = pixel.clip(0, [camera.width - 1, camera.height - 1]).T
    near = depth[i, j] > keypoints[:, 2] - radius
    return inside & near & ~hidden[i, j]


def _looseness(camera: Camera, alone: Scene, placed: Placed) -> tuple[float, dict[str, float]]:
    """Mean distance in metres from visible garments to the tangent plane at the body's nearest vertex."""
    half = replace(camera, width=camera.width // 2, height=camera.height // 2, focal=camera.focal / 2)
    ids = render.triangle_ids(half, alone.vertices, alone.faces, 1)
    pixels = render.look_up(half, alone, ids, 1)
    labels = render.labels_of(alone, pixels)
    cloth = np.flatnonzero(np.isin(labels, list(CLOTH)))[::7]
    if not len(cloth):
        return 0.0, {}
    points = pixels.position[cloth].astype(np.float64)
    distance, nearest = KDTree(placed.wearer.vertices).query(points)
    off = np.abs(np.einsum("nc,nc->n", points - placed.wearer.vertices[nearest], placed.wearer.normals[nearest]))
    off = np.where(distance > 0.03, distance, off)
    by_label = {CLOTH[int(k)]: float(off[labels[cloth] == k].mean()) for k in np.unique(labels[cloth])}
    return float(off.mean()), by_label


def through_lens(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, sensor noise and JPEG compression: (H, W, 3) uint8."""
    soft = float(rng.choice([0.0, 0.5, 0.8], p=[0.4, 0.4, 0.2]))
    if soft:
        picture = cv2.GaussianBlur(picture, (0, 0), soft)
    noise = rng.normal(0, rng.uniform(0.5, 3.5), picture.shape).astype(np.float32)
    noisy = (picture + noise).clip(0, 255).round().astype(np.uint8)
    _, packed = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(78, 97))])
    seen = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    assert seen is not None
    return np.ascontiguousarray(seen[..., ::-1])
