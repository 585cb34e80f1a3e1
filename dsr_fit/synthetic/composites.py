"""Pictures of several clothed people on one floor, near and far, who hide each other; with the truth about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from dsr_fit.boxes import Box
from dsr_fit.labels import OTHER_PERSON
from dsr_fit.synthetic import render, shading, staging
from dsr_fit.synthetic.backdrop import paint_backdrop
from dsr_fit.synthetic.dressing import dress
from dsr_fit.synthetic.paint import random_look
from dsr_fit.synthetic.people import through_lens, visible_keypoints
from dsr_fit.synthetic.staging import Camera, Casting, Placed, Stance
from dsr_fit.synthetic.wardrobe import random_outfit

PEOPLE = (2, 6)
HEIGHTS = (0.08, 0.92)
"""Of the people's bodies in shares of the picture's height."""

MOST_HIDDEN = 0.75
"""Of anybody in a group, about."""

COVERED = (0.05, 1 / 3)
"""Share of the main person that is hidden where another stands in front of it."""

APART = 0.6
"""Metres between two people's places on the floor, at least."""

MOST_OUTSIDE = 0.35
"""Of a person's vertices beyond the picture's edge."""

_COARSE = 4  # pixels of the picture in one of the masks that people are placed by
_TRIES = 12  # places for one person


@dataclass(frozen=True)
class CompositePerson:
    """One person of a composite. Camera frame as in `ClothedCase`; pixels are the picture's."""

    global_orient: np.ndarray  # (3,) float32 axis-angle, camera frame
    body_pose: np.ndarray  # (69,) float32 axis-angle
    betas: np.ndarray  # (10,) float32
    cam_t: np.ndarray  # (3,) float32 metres
    vertices: np.ndarray  # (V, 3) float32 of the open body, with cam_t
    joints: np.ndarray  # (49, 3) float32 keypoints, with cam_t
    keypoints: np.ndarray
    """(49, 3) float32 true pixels, and 1 where visible: in the picture, not behind a nearer person, nor behind more
    than the person's own limb."""
    full_mask: np.ndarray  # (H, W) bool: the person with clothes, ignoring who is in front
    visible_mask: np.ndarray  # (H, W) bool
    labels: np.ndarray  # (H, W) uint8: 253 on all other people, before and behind
    covered: float  # share of the full mask that is behind nearer people
    outside: float  # share of the body's vertices beyond the picture's edge
    box: Box  # of the full mask

    @property
    def hidden(self) -> float:
        """Share of the person that the picture does not show."""
        return 1 - (1 - self.covered) * (1 - self.outside)


@dataclass(frozen=True)
class Composite:
    """A picture and everybody in it. The principal point is the picture's centre."""

    seed: int
    image: np.ndarray  # (H, W, 3) uint8 RGB
    focal_length: float  # pixels
    people: tuple[CompositePerson, ...]  # nearest first
    backdrop: str  # kind of background


@dataclass(frozen=True)
class Couple:
    """The same person with another in front of or behind it, and alone: the rest of the picture is the same."""

    together: Composite
    alone: Composite
    main: int  # of the people together
    in_front: bool  # where the other is


@dataclass(frozen=True)
class _Cast:
    """A person with its place, before it is dressed."""

    stance: Stance
    betas: np.ndarray
    placed: Placed
    number: int  # of its clothes and look

    @property
    def depth(self) -> float:
        return float(self.placed.wearer.vertices[:, 2].mean())


def composite(seed: int, casting: Casting | None = None) -> Composite:
    """The group of two to six people of this seed, the same on every call."""
    camera, group = _staged_group(_stream(seed, 0), casting or Casting())
    return _painted(seed, _before_wall(camera, group), [_dressed(seed, one) for one in group])


def couple(seed: int, casting: Casting | None = None) -> Couple:
    """The person of this seed with another, who hides 5 % to a third of it, or stands partly behind it."""
    rng, casting = _stream(seed, 1), casting or Casting()
    in_front = bool(rng.uniform() < 0.5)
    stance, betas = staging.random_stance(rng, casting), rng.normal(size=10).astype(np.float32)
    placed, camera = staging.stage(stance, betas, False, rng, casting)
    main = _Cast(stance, betas, placed, 0)
    while True:
        other_placed, other_stance, other_betas = staging.companion(camera, placed, rng, casting)
        other = _Cast(other_stance, other_betas, other_placed, 1)
        covered = _covered(camera, [main, other])
        if (other.depth < main.depth) == in_front and COVERED[0] < covered[0 if in_front else 1] < (
            COVERED[1] if in_front else MOST_HIDDEN
        ):
            break
    camera = _before_wall(camera, [main, other])
    both = [_dressed(seed, one) for one in (main, other)]
    return Couple(_painted(seed, camera, both), _painted(seed, camera, both[:1]), int(in_front), in_front)


def _stream(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([seed, 17, *numbers])


def _staged_group(rng: np.random.Generator, casting: Casting) -> tuple[Camera, list[_Cast]]:
    """A camera, and people on its floor."""
    while True:
        count = int(rng.integers(PEOPLE[0], PEOPLE[1] + 1))
        heights = np.exp(rng.uniform(np.log(HEIGHTS[0]), np.log(HEIGHTS[1]), count))
        width, height = int(rng.integers(720, 1081)), int(rng.integers(640, 861))
        focal = float(np.hypot(width, height) * np.exp(rng.uniform(np.log(0.8), np.log(1.6))))
        # The horizon is as high as shows the tallest from head to foot, seen from the camera's height.
        above = float(rng.uniform(0.9, 2.0))
        tallest = float(heights.max())
        horizon = rng.uniform(0.03, 0.97 - tallest) if tallest < 0.94 else 0.03
        horizon += tallest * (1 - above / 1.7)
        pitch = float(np.arctan((0.5 - horizon) * height / focal))
        rotation = staging.camera_rotation(pitch, float(rng.normal(0, casting.roll)))
        camera = Camera(width, height, focal, rotation, -above * rotation[:, 1])
        group: list[_Cast] = []
        for share in sorted(heights, reverse=True):
            group += _joining(camera, group, float(share), rng, casting)
        if len(group) == len(heights):
            return camera, group


def _joining(
    camera: Camera, group: list[_Cast], share: float, rng: np.random.Generator, casting: Casting
) -> list[_Cast]:
    """One more person of this share of the picture's height; nobody where there is no room left."""
    stance, betas = staging.random_stance(rng, casting), rng.normal(size=10).astype(np.float32)
    centred = staging.place(stance, betas, camera.rotation, np.zeros(3)).wearer.vertices
    for _ in range(_TRIES):
        column = float(rng.uniform(0.06, 0.94) * camera.width)
        placed = staging.place(stance, betas, camera.rotation, _place(camera, centred, share, column))
        pixels = camera.project(placed.wearer.vertices)
        outside = ((pixels < 0) | (pixels > [camera.width, camera.height])).any(1).mean()
        feet = [placed.cam_t - (placed.cam_t @ camera.down) * camera.down]
        feet += [one.placed.cam_t - (one.placed.cam_t @ camera.down) * camera.down for one in group]
        near = any(np.linalg.norm(feet[0] - other) < APART for other in feet[1:])
        new = [*group, _Cast(stance, betas, placed, len(group))]
        if outside < MOST_OUTSIDE and not near and max(_covered(camera, new)) < MOST_HIDDEN:
            return new[-1:]
    return []


def _place(camera: Camera, centred: np.ndarray, share: float, column: float) -> np.ndarray:
    """cam_t (3,) of a body of vertices (V, 3) on the floor, that tall in the picture, about that column."""
    right, ahead = camera.rotation[:, 0], -camera.rotation[:, 2]
    sink = float(camera.floor @ camera.down) - float((centred @ camera.down).max())
    away, aside = 1.7 * camera.focal / (share * camera.height), 0.0
    for _ in range(12):
        cam_t = away * ahead + aside * right + sink * camera.down
        seen = camera.project(np.maximum(centred + cam_t, [-np.inf, -np.inf, 0.3]))
        low, high = seen.min(0), seen.max(0)
        aside += (column - (low[0] + high[0]) / 2) * away / camera.focal
        away = max(away * ((high[1] - low[1]) / (share * camera.height)) ** 0.9, 1.2)
    return away * ahead + aside * right + sink * camera.down


def _covered(camera: Camera, people: Sequence[_Cast]) -> list[float]:
    """Share of each body within the picture that nearer ones hide, at low resolution."""
    small = replace(
        camera, width=camera.width // _COARSE, height=camera.height // _COARSE, focal=camera.focal / _COARSE
    )
    taken = np.zeros((small.height, small.width), bool)
    shares = [0.0] * len(people)
    for number in np.argsort([one.depth for one in people]):
        mask = render.triangle_ids(small, people[number].placed.wearer.vertices, staging.body_faces(), 1) > 0
        shares[number] = float((mask & taken).sum() / max(mask.sum(), 1))
        taken |= mask
    return shares


def _before_wall(camera: Camera, group: Sequence[_Cast]) -> Camera:
    """The same camera, whose point of the floor is below the farthest person: the wall is behind it."""
    middle = max(group, key=lambda one: one.depth).placed.wearer.vertices.mean(0)
    return replace(camera, floor=middle + (camera.floor - middle) @ camera.down * camera.down)


def _dressed(seed: int, one: _Cast) -> tuple[_Cast, render.Scene]:
    rng = _stream(seed, 2, one.number)
    return one, render.assemble([dress(one.placed.wearer, random_outfit(rng, one.stance.roomy), rng)])


def _painted(seed: int, camera: Camera, group: Sequence[tuple[_Cast, render.Scene]]) -> Composite:
    """The picture and the truth, by painting the farthest first."""
    group = sorted(group, key=lambda each: each[0].depth)
    taken = np.zeros((camera.height, camera.width), bool)
    people = []
    for one, scene in group:
        people.append(_truth(camera, one, scene, taken))
        taken = taken | people[-1].full_mask
    for one, other in permutations(people, 2):
        one.labels[other.visible_mask] = OTHER_PERSON

    lights = shading.random_lights(_stream(seed, 3), camera.down)
    picture, backdrop = _background(camera, [scene for _, scene in group], lights, _stream(seed, 4))
    for one, scene in reversed(group):
        look = random_look(_stream(seed, 5, one.number))
        shadow = shading.shadow_map(scene.vertices, scene.faces, lights.key)
        picture = render.compose(camera, scene, [look], lights, shadow, picture)
    return Composite(seed, through_lens(picture, _stream(seed, 6)), camera.focal, tuple(people), backdrop)


def _background(
    camera: Camera, scenes: Sequence[render.Scene], lights: shading.Lights, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    """The wall, and the floor with everybody's shadow: (H, W, 3) float32; and its kind."""
    everybody = render.assemble([scene.pieces for scene in scenes])
    shadow = shading.shadow_map(everybody.vertices, everybody.faces, lights.key)
    key_share = float((lights.key_colour / (lights.key_colour + lights.sky)).mean() * lights.key @ -camera.down)
    # A far wall fills the view without repeating itself.
    tall = 0.9 * float(camera.floor[2]) * camera.height / camera.focal
    return paint_backdrop(camera, rng, shadow, min(max(key_share, 0.0), 0.75), tall)


def _truth(camera: Camera, one: _Cast, scene: render.Scene, taken: np.ndarray) -> CompositePerson:
    """`taken` (H, W) bool: where nearer people are."""
    ids = render.triangle_ids(camera, scene.vertices, scene.faces, 1)
    pixels = render.look_up(camera, scene, ids, 1)
    depth = np.full(ids.shape, np.inf, np.float32)
    depth.flat[pixels.index] = pixels.position[:, 2]
    labels = np.zeros(ids.shape, np.uint8)
    labels.flat[pixels.index] = render.labels_of(scene, pixels)
    full = ids > 0
    rows, columns = np.flatnonzero(full.any(1)), np.flatnonzero(full.any(0))
    placed = one.placed
    places = camera.project(placed.wearer.vertices)
    visible = visible_keypoints(camera, placed.keypoints, depth, taken)
    return CompositePerson(
        global_orient=placed.global_orient,
        body_pose=one.stance.body_pose.astype(np.float32),
        betas=one.betas,
        cam_t=placed.cam_t,
        vertices=placed.wearer.vertices.astype(np.float32),
        joints=placed.keypoints,
        keypoints=np.column_stack([camera.project(placed.keypoints), visible]).astype(np.float32),
        full_mask=full,
        visible_mask=full & ~taken,
        labels=labels,
        covered=float((full & taken).sum() / full.sum()),
        outside=float(((places < 0) | (places > [camera.width, camera.height])).any(1).mean()),
        box=(float(columns[0]), float(rows[0]), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)),
    )
