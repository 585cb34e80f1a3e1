"""One clothed person by seed: pose, shape, camera, garments, scene and the truth about all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.spatial import KDTree

from dsr_fit.joints import KEYPOINTS_49
from dsr_fit.labels import LABEL_INDEX, OCCLUDER
from dsr_fit.synthetic import occluders, render, shading, staging
from dsr_fit.synthetic.backdrop import paint_backdrop
from dsr_fit.synthetic.camera_frame import View
from dsr_fit.synthetic.garments import Piece
from dsr_fit.synthetic.outfitter import look_of, occluder_look, pieces_of
from dsr_fit.synthetic.render import Scene
from dsr_fit.synthetic.staging import Casting, Placed, ViewName
from dsr_fit.synthetic.wardrobe import dress_up

CLOTH_LABELS = tuple(LABEL_INDEX[name] for name in ("upperclothes", "dress", "coat", "pants", "skirt"))
MOST_HIDDEN = 0.5  # of the person; what hides more is placed anew
MAIN, SECOND, THING = 0, 1, 2


@dataclass(frozen=True)
class ClothedCase:
    """A picture of a clothed person and the truth about the body in it.

    Camera frame: x right, y down, z forward, metres; the principal point is the image's centre.
    """

    seed: int
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    global_orient: np.ndarray
    """(3,) float32 axis-angle, camera frame."""
    body_pose: np.ndarray
    """(69,) float32 axis-angle."""
    betas: np.ndarray
    """(10,) float32."""
    cam_t: np.ndarray
    """(3,) float32 metres."""
    focal_length: float
    """Pixels."""
    vertices: np.ndarray
    """(V, 3) float32 of the open body, `cam_t` included."""
    joints: np.ndarray
    """(49, 3) float32 keypoints, `cam_t` included."""
    keypoint_visibility: np.ndarray
    """(49,) bool: in the frame, and nothing but the person's own near surface lies before the keypoint."""
    body_mask: np.ndarray
    """(H, W) bool: the unclothed body, as if nothing stood before it."""
    clothed_mask: np.ndarray
    """(H, W) bool: the person with clothes, hair and shoes, as if nothing stood before it."""
    labels: np.ndarray
    """(H, W) uint8: the 20 labels where this person is seen; 254 on things and people that stand before any
    part of this person, 255 on bare bellies, which have no label; else background."""
    looseness: float
    """Metres: how far garments stand off the body on average, over the pixels that show them."""
    looseness_by_label: dict[str, float]
    """The same for each garment label seen."""
    view: ViewName
    occluded: str | None
    """What thing stands before the person."""
    second_person: bool
    cropped: bool
    garments: tuple[str, ...]
    """Names of `wardrobe.KINDS`."""
    clip: str
    """The motion clip that the pose is from; always a held-out one."""
    backdrop: str
    """Empty where the picture was not painted."""

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels."""
        height, width = self.labels.shape
        return self.focal_length, self.focal_length, width / 2, height / 2

    @property
    def keypoints(self) -> np.ndarray:
        """(49, 3) float32 true pixels, and confidence: 1 where visible, else 0."""
        focal, _, cx, cy = self.intrinsics
        pixels = self.joints[:, :2] / self.joints[:, 2:] * focal + (cx, cy)
        return np.concatenate([pixels, self.keypoint_visibility[:, None]], 1).astype(np.float32)


def generate(seed: int, casting: Casting | None = None, *, painted: bool = True) -> ClothedCase:
    """The clothed person of this seed; the same on every call, whatever other seeds are generated.

    Without `painted` the picture stays black, and everything else is there in a third of the time.
    """
    casting = casting or Casting()

    def stream(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, number])

    rng = stream(0)
    stance = staging.random_stance(rng, casting)
    betas = rng.normal(size=10).astype(np.float32)
    with_second, with_thing, cropped = rng.uniform() < 0.2, rng.uniform() < 0.21, rng.uniform() < 0.15
    placed, view = staging.stage(stance, betas, cropped, stream(1), casting)
    outfit = dress_up(stream(2), stance.roomy)
    groups: list[list[Piece]] = [pieces_of(placed.wearer, outfit, stream(3)), [], []]
    thing: str | None = None
    body = placed.wearer.vertices
    if with_second:
        groups[SECOND] = _second_person(view, placed, stream(7), casting)
    if with_thing:
        groups[THING], thing = _thing(view, placed, stream(8))

    scene = render.assemble(groups)
    alone = render.assemble([groups[MAIN]])
    seen = _seen(view, scene, alone)
    image, backdrop = np.zeros((view.height, view.width, 3), np.uint8), ""
    if painted:
        image, backdrop = _painted(view, scene, stream)
    looseness, by_label = _looseness(view, alone, placed)
    body_mask = render.triangle_ids(view, body, staging.body_faces(), 1) > 0
    return ClothedCase(
        seed=seed,
        image=image,
        global_orient=placed.global_orient,
        body_pose=stance.body_pose.astype(np.float32),
        betas=betas,
        cam_t=placed.cam_t,
        focal_length=view.focal,
        vertices=body.astype(np.float32),
        joints=placed.keypoints,
        keypoint_visibility=_visibility(view, placed.keypoints, seen),
        body_mask=body_mask,
        clothed_mask=seen.clothed,
        labels=seen.labels,
        looseness=looseness,
        looseness_by_label=by_label,
        view=stance.view,
        occluded=thing,
        second_person=with_second,
        cropped=cropped,
        garments=outfit.kinds,
        clip=stance.clip,
        backdrop=backdrop,
    )


def _painted(view: View, scene: Scene, stream: Callable[[int], np.random.Generator]) -> tuple[np.ndarray, str]:
    """The picture (H, W, 3) uint8 of the scene in its light, and the kind of its backdrop."""
    looks = [look_of(stream(4)), look_of(stream(5)), occluder_look(stream(6))]
    lights = shading.random_lights(stream(9), view.down)
    shadow = shading.shadow_map(scene.vertices, scene.faces, lights.key)
    key_share = float((lights.key_colour / (lights.key_colour + lights.sky)).mean() * lights.key @ -view.down)
    background, backdrop = paint_backdrop(view, stream(10), shadow, min(max(key_share, 0.0), 0.75))
    picture = render.compose(view, scene, looks, lights, shadow, background)
    return _through_lens(picture, stream(11)), backdrop


def _second_person(view: View, main: Placed, rng: np.random.Generator, casting: Casting) -> list[Piece]:
    """Another dressed person, who hides at most half of the first."""
    for _ in range(6):
        placed, stance = staging.companion(view, main, rng, casting)
        if _hidden_share(view, main, placed.wearer.vertices, staging.body_faces()) < MOST_HIDDEN:
            break
    return pieces_of(placed.wearer, dress_up(rng, stance.roomy), rng)


def _thing(view: View, main: Placed, rng: np.random.Generator) -> tuple[list[Piece], str | None]:
    """An occluder that hides something of the person, but at most half; none where eight tries find no place."""
    for _ in range(8):
        pieces, kind = occluders.occluder(view, main.wearer.vertices, rng)
        scene = render.assemble([pieces])
        if 0.03 < _hidden_share(view, main, scene.vertices, scene.faces) < MOST_HIDDEN:
            return pieces, kind
    return [], None


def _hidden_share(view: View, main: Placed, vertices: np.ndarray, faces: np.ndarray) -> float:
    """Share of the main body that the mesh hides, on a small picture."""
    small = replace(view, width=view.width // 6, height=view.height // 6, focal=view.focal / 6)
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
class _Seen:
    """What the full-resolution image shows at its pixels' centres."""

    labels: np.ndarray  # (H, W) uint8
    clothed: np.ndarray  # (H, W) bool
    depth: np.ndarray  # (H, W) float32 metres, inf on the background


def _seen(view: View, scene: Scene, alone: Scene) -> _Seen:
    shape = (view.height, view.width)
    ids = render.triangle_ids(view, scene.vertices, scene.faces, 1)
    pixels = render.look_up(view, scene, ids, 1)
    figure = np.full(shape, -1)
    figure.flat[pixels.index] = scene.figure[pixels.piece]
    labels = np.zeros(shape, np.uint8)
    labels.flat[pixels.index] = render.labels_of(scene, pixels)
    depth = np.full(shape, np.inf, np.float32)
    depth.flat[pixels.index] = pixels.position[:, 2]
    clothed = render.triangle_ids(view, alone.vertices, alone.faces, 1) > 0
    for other in (SECOND, THING):
        there = figure == other
        # What lies behind all of a thing in front is unknown, not only where the person is known to be.
        in_front = bool((there & clothed).any())
        labels[there] = OCCLUDER if in_front else 0
    return _Seen(labels, clothed, depth)


def _visibility(view: View, keypoints: np.ndarray, seen: _Seen) -> np.ndarray:
    """(49,) bool; a keypoint lies inside the body, up to its limb's radius behind what shows it."""
    radius = np.array([0.05 if _on_head(name) else 0.17 if _on_torso(name) else 0.10 for name in KEYPOINTS_49])
    pixel = np.floor(view.project(keypoints)).astype(int)
    inside = ((pixel >= 0) & (pixel < [view.width, view.height])).all(1) & (keypoints[:, 2] > 0)
    j, i = pixel.clip(0, [view.width - 1, view.height - 1]).T
    near = seen.depth[i, j] > keypoints[:, 2] - radius
    return inside & near & (seen.labels[i, j] != OCCLUDER)


def _on_head(name: str) -> bool:
    return any(part in name for part in ("Nose", "Eye", "Ear", "Jaw"))


def _on_torso(name: str) -> bool:
    return any(part in name for part in ("Hip", "Pelvis", "Thorax", "Spine", "Neck", "Head", "Shoulder"))


def _looseness(view: View, alone: Scene, placed: Placed) -> tuple[float, dict[str, float]]:
    """Mean distance in metres from the garments seen to the body's nearest vertex's tangent plane."""
    half = replace(view, width=view.width // 2, height=view.height // 2, focal=view.focal / 2)
    ids = render.triangle_ids(half, alone.vertices, alone.faces, 1)
    pixels = render.look_up(half, alone, ids, 1)
    labels = render.labels_of(alone, pixels)
    cloth = np.flatnonzero(np.isin(labels, CLOTH_LABELS))[::7]
    if not len(cloth):
        return 0.0, {}
    points = pixels.position[cloth].astype(np.float64)
    distance, nearest = KDTree(placed.wearer.vertices).query(points)
    off = np.abs(np.einsum("nc,nc->n", points - placed.wearer.vertices[nearest], placed.wearer.normals[nearest]))
    off = np.where(distance > 0.03, distance, off)
    names = {LABEL_INDEX[name]: name for name in ("upperclothes", "dress", "coat", "pants", "skirt")}
    by_label = {names[int(k)]: float(off[labels[cloth] == k].mean()) for k in np.unique(labels[cloth])}
    return float(off.mean()), by_label


def _through_lens(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Softness, sensor noise and JPEG, as photos have them: (H, W, 3) uint8."""
    soft = float(rng.choice([0.0, 0.5, 0.8], p=[0.4, 0.4, 0.2]))
    if soft:
        picture = cv2.GaussianBlur(picture, (0, 0), soft)
    noise = rng.normal(0, rng.uniform(0.5, 3.5), picture.shape).astype(np.float32)
    noisy = (picture + noise).clip(0, 255).round().astype(np.uint8)
    _, packed = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(78, 97))])
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
