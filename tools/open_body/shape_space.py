"""A linear shape space whose coefficients have unit variance over the sampled adults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from open_body.mesh import symmetrize


@dataclass(frozen=True)
class ShapeSpace:
    """v = v_template + shapedirs @ betas, betas ~ N(0, 1) over the sampled adults."""

    v_template: np.ndarray
    """(V, 3)"""
    shapedirs: np.ndarray
    """(V, 3, K)"""
    explained: np.ndarray
    """(K,) share of the samples' area-weighted variance"""
    area: np.ndarray
    """(V,) the weights of the least squares that gives betas"""

    def encode(self, vertices: np.ndarray) -> np.ndarray:
        """Betas (N, K) of bodies (N, V, 3), by area-weighted least squares."""
        root = np.sqrt(self.area)[:, None]
        basis = (self.shapedirs * root[..., None]).reshape(-1, self.shapedirs.shape[2])
        flat = ((vertices - self.v_template) * root).reshape(len(vertices), -1)
        return np.linalg.lstsq(basis, flat.T, rcond=None)[0].T

    def decode(self, betas: np.ndarray) -> np.ndarray:
        """Bodies (N, V, 3) of betas (N, K)."""
        return self.v_template + np.einsum("vik,nk->nvi", self.shapedirs, betas)


def build_shape_space(vertices: np.ndarray, area: np.ndarray, mirror: np.ndarray, count: int = 10) -> ShapeSpace:
    """Area-weighted PCA of bodies (N, V, 3), so that the head's many vertices do not outvote the torso.

    Signs: a larger first beta is a taller body, a larger other one a wider body.
    """
    v_template = symmetrize(vertices.mean(0), mirror)
    centred = symmetrize(vertices, mirror) - v_template
    flat = (centred * np.sqrt(area)[:, None]).reshape(len(centred), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)  # ascending
    betas = vectors[:, ::-1][:, :count] * np.sqrt(len(flat) - 1)
    shapedirs = np.einsum("nk,nvi->vik", betas, centred) / (len(flat) - 1)
    # Growth away from the vertical axis stands for width.
    height = np.ptp(v_template[:, 1])
    top, sole = v_template[:, 1].argmax(), v_template[:, 1].argmin()
    taller = (shapedirs[top, 1] - shapedirs[sole, 1]) / height
    outward = v_template * np.array([1.0, 0.0, 1.0])
    wider = np.einsum("vi,vik,v->k", outward, shapedirs, area)
    sign = np.where(np.arange(count) == 0, np.sign(taller), np.sign(wider))
    share = values[::-1][:count] / values.sum()
    return ShapeSpace(v_template, shapedirs * sign, share, area)
