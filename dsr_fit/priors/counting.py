"""The semantic prior learnt from views of clothed people with known bodies: label counts, and P(label | vertex).

Follows DSR's supplementary material: the count of a label at a vertex over that of all labels but background, a small
probability of background everywhere, zero for what a body part can't wear. In addition, since most photos show people
from the front: both sides of the body are counted together, and vertices seen rarely follow their neighbours and the
front of the same limb.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.linalg import factorized
from scipy.spatial import KDTree
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.errors import InputError
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import LABEL_INDEX, LABELS, MIRRORED_LABELS
from dsr_fit.priors.outfits import SLEEVES, TRUNKS, on_arms, outfit_of
from dsr_fit.render.renderer import Renderer

BACKGROUND = 0.02
"""Probability of background at every vertex."""

SMOOTHING = 20.0
"""Observations that the mean of a vertex's neighbours counts as."""

BORROWED = 2.0
"""Observations that the front of the same limb counts as."""

TOWARDS_AVERAGE = 3.0
"""Observations that the average prior counts as in the prior of an outfit."""

_SHARE = 0.1
"""Minimum skinning weight for a vertex to belong to a body part."""

_TOPS = "upperclothes dress coat jumpsuits"
_LOWER = "pants skirt dress coat jumpsuits"
_WORN_ON: dict[str, str] = {
    "head": "hat hair sunglasses scarf face",
    "neck": f"hat hair scarf face {_TOPS}",
    "collar": f"hair scarf face arm {_TOPS}",
    "spine": f"hair scarf face pants skirt {_TOPS}",
    "pelvis": f"pants skirt leg {_TOPS}",
    "shoulder": f"hair scarf arm {_TOPS}",
    "elbow": f"arm glove {_TOPS}",
    "wrist": f"arm glove {_TOPS}",
    "hand": f"arm glove {_TOPS}",
    "hip": f"leg socks upperclothes {_LOWER}",
    "knee": f"leg shoe socks {_LOWER}",
    "ankle": "leg shoe socks pants skirt dress jumpsuits",
    "foot": "leg shoe socks pants skirt dress jumpsuits",
}
"""Body part -> labels possible there; `arm`, `leg` and `shoe` are those of the part's side, or of both sides."""


@dataclass(frozen=True)
class View:
    """One view of a clothed person: a label map, the body's surface and the camera."""

    labels: np.ndarray  # (H, W) uint8: 0..19 of `labels.LABELS`, 254 occluder, 255 unknown
    vertices: Tensor  # (V, 3) metres, camera frame
    intrinsics: Tensor  # (4,) fx, fy, cx, cy, pixels of `labels`

    @torch.no_grad()
    def rasterise(self, renderer: Renderer) -> np.ndarray:
        """(H, W, 4) the renderer's buffer of the body: u, v, z/w, triangle + 1."""
        height, width = self.labels.shape
        return renderer(self.vertices[None], self.intrinsics[None], (height, width)).rast[0].cpu().numpy()


def count_labels(
    rast: np.ndarray,  # (H, W, 4) the renderer's buffer: u, v, z/w, triangle + 1
    labels: np.ndarray,  # (H, W) uint8; occluder and unknown are skipped
    faces: np.ndarray,  # (F, 3)
    num_vertices: int,
) -> np.ndarray:
    """(V, 20) pixels of each label at each vertex; a pixel is split among its triangle's corners barycentrically."""
    seen = (rast[..., 3] > 0) & (labels < len(LABELS))
    u, v = rast[seen, 0].astype(np.float64), rast[seen, 1].astype(np.float64)
    corners = faces[rast[seen, 3].astype(np.int64) - 1].astype(np.int64)
    cells = corners * len(LABELS) + labels[seen].astype(np.int64)[:, None]
    weights = np.stack([u, v, 1 - u - v], 1)
    counts = np.bincount(cells.ravel(), weights.ravel(), minlength=num_vertices * len(LABELS))
    return np.maximum(counts, 0).reshape(num_vertices, len(LABELS))


def observations_of(counts: np.ndarray) -> np.ndarray:
    """(V, 20) pixels of one view -> (V, 20) observations: without background, at most one per vertex.

    So close-ups don't outvote distant views.
    """
    worn = counts.copy()
    worn[:, 0] = 0
    return worn / np.maximum(worn.sum(1, keepdims=True), 1)


def mirror_of(body: Body) -> np.ndarray:
    """(V,) index of each vertex's mirror image, the nearest to its position with x negated."""
    points = body.v_template.cpu().numpy()
    return np.asarray(KDTree(points).query(points * (-1, 1, 1))[1])


def allowed_labels(body: Body) -> np.ndarray:
    """(V, 20) bool: labels possible on a vertex's body parts, including background."""
    weights = body.weights.dense().cpu().numpy()
    parts = np.zeros((len(SMPL_JOINTS), len(LABELS)), bool)
    parts[:, 0] = True
    for joint, name in enumerate(SMPL_JOINTS):
        part = name.removeprefix("left_").removeprefix("right_").rstrip("123")
        sides = [name.split("_")[0]] if "_" in name else ["left", "right"]
        for label in _WORN_ON[part].split():
            sided = label in ("arm", "leg", "shoe")
            for each in [side + label.capitalize() for side in sides] if sided else [label]:
                parts[joint, LABEL_INDEX[each]] = True
    belongs = (weights >= _SHARE) | (weights == weights.max(1, keepdims=True))
    return belongs.astype(np.float64) @ parts > 0


def fronts_of(body: Body) -> np.ndarray:
    """(V,) the front vertex opposite each back vertex of the T-pose; -1 elsewhere and on neck, head and feet."""
    points, faces = body.v_template.cpu().numpy().astype(np.float64), body.faces.cpu().numpy()
    corners = points[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    facing = np.bincount(faces.ravel(), across.repeat(3), minlength=len(points))  # z of the normal
    part = body.weights.dense().cpu().numpy().argmax(1)
    both = ~np.array([name.endswith(("neck", "head", "foot", "ankle")) for name in SMPL_JOINTS])[part]
    front, back = np.flatnonzero(both & (facing > 0)), np.flatnonzero(both & (facing < 0))
    fronts = np.full(len(points), -1)
    if len(front):
        fronts[back] = front[KDTree(points[front, :2]).query(points[back, :2])[1]]
    return fronts


def neighbours_of(body: Body) -> sparse.csr_matrix:
    """(V, V) rows average a vertex's mesh neighbours by inverse distance; unused vertices keep their own value."""
    faces, points = body.faces.cpu().numpy().astype(np.int64), body.v_template.cpu().numpy().astype(np.float64)
    edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    near = 1 / np.maximum(length, 1e-4)
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    count = len(points)
    matrix = sparse.csr_matrix((np.concatenate([near, near]), (rows, columns)), shape=(count, count))
    degree = np.asarray(matrix.sum(1)).ravel()
    matrix = matrix + sparse.diags((degree == 0).astype(np.float64))
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(degree, (degree == 0))) @ matrix)


def prior_from(
    observed: np.ndarray, body: Body, towards: np.ndarray | None = None, strength: float = 0.0
) -> np.ndarray:
    """(V, 20) float32 probabilities from observations (V, 20); rows sum to 1.

    Solves n p + SMOOTHING (p - mean of neighbours) + strength (p - towards) = counts, n the observations of a vertex;
    then again with back vertices pulled to their fronts by BORROWED + strength. `towards` (V, 20) is the fallback where
    data are sparse. Raises InputError if nothing was observed.
    """
    observed = observed * allowed_labels(body)
    observed[:, 0] = 0
    if towards is None and not observed.any():
        raise InputError("no pixel on a body has a label possible there: nothing to make a prior of")
    observed = (observed + observed[mirror_of(body)][:, MIRRORED_LABELS[:20]]) / 2
    seen = observed.sum(1)
    pulled = np.zeros_like(observed)
    if towards is not None:
        pulled[:, 1:] = strength * towards[:, 1:] / towards[:, 1:].sum(1, keepdims=True)
    smooth = SMOOTHING * (sparse.identity(len(seen)) - neighbours_of(body))
    # A little of everything, for parts of the mesh that no observation reaches.
    anywhere = 1e-6
    somewhere = anywhere * (observed + pulled).sum(0) / (observed + pulled).sum()

    def solved(added: np.ndarray) -> np.ndarray:
        solve = factorized(sparse.csc_matrix(smooth + sparse.diags(seen + added.sum(1) + anywhere)))
        found = [solve(column) for column in np.ascontiguousarray((observed + added + somewhere).T)]
        return np.maximum(np.stack(found, 1), 0)

    first = solved(pulled)
    fronts = fronts_of(body)
    back = fronts >= 0
    borrowed = first[np.where(back, fronts, 0)]
    borrowed[:, LABEL_INDEX["face"]] = 0  # necklines are in front
    borrowed *= (BORROWED + pulled.sum(1, keepdims=True)) / np.maximum(borrowed.sum(1, keepdims=True), 1e-9)
    found = solved(np.where(back[:, None], borrowed, pulled))  # fronts were pulled already
    found = np.maximum(found, 1e-6) * allowed_labels(body)  # no row is empty
    found[:, 0] = 0
    found = (found + found[mirror_of(body)][:, MIRRORED_LABELS[:20]]) / 2
    found *= (1 - BACKGROUND) / found.sum(1, keepdims=True)
    found[:, 0] = BACKGROUND
    return found.astype(np.float32)


def learn(views: Iterable[View], body: Body) -> dict[str, np.ndarray]:
    """The arrays of a prior's file, including the priors of outfits, from many views.

    Raises InputError when no view shows a label on the body.
    """
    renderer = Renderer(body.faces, body.num_vertices, device="cpu", outline="none")
    faces = body.faces.cpu().numpy()
    everyone = np.zeros((body.num_vertices, len(LABELS)))
    classes = {"trunk": len(TRUNKS), "sleeves": len(SLEEVES)}
    counts = {kind: np.zeros((count, *everyone.shape)) for kind, count in classes.items()}
    seen_views = {kind: np.zeros(count, np.int64) for kind, count in classes.items()}
    for view in views:
        observed = observations_of(count_labels(view.rasterise(renderer), view.labels, faces, body.num_vertices))
        everyone += observed
        for kind, worn in vars(outfit_of(view.labels)).items():
            if worn is not None:
                counts[kind][worn] += observed
                seen_views[kind][worn] += 1
    average = prior_from(everyone, body)
    shared = {"towards": average, "strength": TOWARDS_AVERAGE}
    return {
        "probabilities": _rounded(average),
        "trunks": np.stack([_rounded(prior_from(seen, body, **shared)) for seen in counts["trunk"]]),
        "sleeves": np.stack([_rounded(prior_from(seen, body, **shared)) for seen in counts["sleeves"]])[
            :, on_arms(body)
        ],
        "observations": everyone.sum(1).astype(np.float32),
        "trunk_views": seen_views["trunk"],
        "sleeve_views": seen_views["sleeves"],
        "labels": np.array(LABELS),
        "body_sha256": np.array(body.sha256),
    }


def _rounded(probabilities: np.ndarray) -> np.ndarray:
    """Rounded to 1/4096 as float16, for small files."""
    return (np.round(probabilities * 4096) / 4096).astype(np.float16)
