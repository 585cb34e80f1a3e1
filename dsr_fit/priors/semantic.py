"""The semantic prior: P(label | surface point) of a body, on average and by outfit."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY, load_body
from dsr_fit.errors import InputError
from dsr_fit.io.files import read_arrays
from dsr_fit.labels import LABELS, MC_LABELS, LabelSet
from dsr_fit.priors.outfits import SLEEVES, TRUNKS, Outfit, on_arms, outfit_of

ASSET = "priors/semantic/prior.npz"


@dataclass(frozen=True)
class OutfitPriors:
    """Priors for each class of `outfits.TRUNKS` and `SLEEVES`; the last of each is the average prior."""

    trunks: Tensor  # (T + 1, V, 20), rows sum to 1
    sleeves: Tensor  # (S + 1, A, 20) of the A vertices on arms
    on_arms: Tensor  # (A,) indices of those vertices

    def of(self, worn: Sequence[Outfit]) -> Tensor:
        """(B, V, 20) the prior of each outfit, the average where a class is unknown."""
        average = Outfit(len(TRUNKS), len(SLEEVES))
        trunks = [average.trunk if outfit.trunk is None else outfit.trunk for outfit in worn]
        sleeves = [average.sleeves if outfit.sleeves is None else outfit.sleeves for outfit in worn]
        probabilities = self.trunks[trunks]
        probabilities[:, self.on_arms] = self.sleeves[sleeves]
        return probabilities


@dataclass(frozen=True)
class SemanticPrior:
    """P(label | surface point) over the 20 labels: one prior for all images, or one per image."""

    probabilities: Tensor
    """(V, 20) or (B, V, 20), F in place of V when `per_face`; rows sum to 1."""
    per_face: bool
    outfits: OutfitPriors | None = None
    """Priors by outfit, if it has them."""

    def dressed(self, labels: Sequence[np.ndarray]) -> SemanticPrior:
        """The priors of B images for the outfits in their label maps (S, S) of the crop; itself without outfits."""
        if self.outfits is None:
            return self
        return SemanticPrior(self.outfits.of([outfit_of(each) for each in labels]), self.per_face)

    def merged(self, label_set: LabelSet) -> Tensor:
        """(V, K) or (B, V, K): probabilities of the classes of a label set."""
        return self.probabilities @ torch.from_numpy(label_set.membership()).to(self.probabilities.device)

    def minimally_clothed(self, valid: Tensor) -> Tensor:
        """(B, V): summed probability of each image's valid MC labels, `valid` (B, 5) bool."""
        minimal = self.probabilities[..., list(MC_LABELS)]
        return (minimal @ valid.to(minimal.dtype)[..., None])[..., 0]

    def fingerprint(self) -> str:
        """SHA-256 of its values."""
        tensors = (self.probabilities, *(vars(self.outfits).values() if self.outfits else ()))
        return hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)).hexdigest()

    def to(self, device: torch.device | str) -> SemanticPrior:
        outfits = self.outfits and OutfitPriors(*(tensor.to(device) for tensor in vars(self.outfits).values()))
        return SemanticPrior(self.probabilities.to(device), self.per_face, outfits)


def load_semantic_prior(body: Body, path: Path | None = None) -> SemanticPrior:
    """The shipped prior, or a file: ours (.npz) or DSR's `semantic_prior.npy`, per face.

    The shipped prior is the open body's; for other bodies it is carried over, with a warning in the log. Raises
    InputError for a file that is damaged or was made for another body.
    """
    if path is None:
        return _shipped_prior(body)
    try:
        loaded = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path}: not a readable semantic prior ({error})") from None
    if isinstance(loaded, np.ndarray):
        rows = np.squeeze(loaded)
        if rows.shape != (len(body.faces), len(LABELS)):
            raise InputError(
                f"{path}: has shape {rows.shape}, but body {body.name!r} has {len(body.faces)} "
                "faces; DSR's prior belongs to official SMPL, give it with --body"
            )
        return SemanticPrior(_normalised(path, rows), per_face=True)
    if "probabilities" not in loaded or "body_sha256" not in loaded:
        raise InputError(f"{path}: lacks `probabilities` or `body_sha256`")
    if str(loaded["body_sha256"]) != body.sha256:
        raise InputError(
            f"{path}: made for another body than {body.name!r}; give that body's own prior with --semantic-prior"
        )
    _check_shape(path, loaded, "probabilities", (body.num_vertices, len(LABELS)))
    average = _normalised(path, loaded["probabilities"])
    return SemanticPrior(average, per_face=False, outfits=_outfits(path, loaded, body, average))


def carry_over(prior: SemanticPrior, source: Body, body: Body) -> SemanticPrior:
    """The prior of `source` (per vertex, one for all images) for `body`, including its outfits."""
    from dsr_fit.priors.correspondence import correspondence  # with scipy, which no other body needs

    rows = correspondence(source, body)

    def carried(values: Tensor) -> Tensor:
        """(..., V, 20) of the source -> (..., V', 20)."""
        flat = values.reshape(-1, *values.shape[-2:]).cpu().numpy()
        found = np.stack([rows @ each for each in flat]).reshape(*values.shape[:-2], -1, values.shape[-1])
        return torch.from_numpy(found.astype(np.float32))

    outfits = None
    if prior.outfits is not None:
        arms = torch.from_numpy(np.flatnonzero(on_arms(body)))
        everywhere = prior.probabilities.repeat(len(prior.outfits.sleeves), 1, 1)
        everywhere[:, prior.outfits.on_arms] = prior.outfits.sleeves
        outfits = OutfitPriors(carried(prior.outfits.trunks), carried(everywhere)[:, arms], arms)
    return SemanticPrior(carried(prior.probabilities), per_face=False, outfits=outfits)


def _shipped_prior(body: Body) -> SemanticPrior:
    path = shipped(ASSET)
    if body.sha256 == sha256(shipped(OPEN_BODY)):
        return load_semantic_prior(body, path)
    own = load_body("open")
    logging.getLogger("dsr_fit").warning(
        "body %r takes the open body's semantic prior, carried over to its vertices; give its own with "
        "--semantic-prior, for official SMPL semantic_prior.npy of DSR's data (https://dsr.is.tue.mpg.de)",
        body.name,
    )
    return carry_over(load_semantic_prior(own, path), own, body)


def _outfits(path: Path, loaded: dict[str, np.ndarray], body: Body, average: Tensor) -> OutfitPriors | None:
    if "trunks" not in loaded or "sleeves" not in loaded:
        return None
    arms = np.flatnonzero(on_arms(body))
    _check_shape(path, loaded, "trunks", (len(TRUNKS), body.num_vertices, len(LABELS)))
    _check_shape(path, loaded, "sleeves", (len(SLEEVES), len(arms), len(LABELS)))
    return OutfitPriors(
        torch.cat([_normalised(path, loaded["trunks"]), average[None]]),
        torch.cat([_normalised(path, loaded["sleeves"]), average[None, arms]]),
        torch.from_numpy(arms),
    )


def _check_shape(path: Path, loaded: dict[str, np.ndarray], name: str, expected: tuple[int, ...]) -> None:
    if loaded[name].shape != expected:
        raise InputError(f"{path}: `{name}` has shape {loaded[name].shape}, expected {expected}")


def _normalised(path: Path, rows: np.ndarray) -> Tensor:
    if not np.all(np.isfinite(rows)) or rows.min() < 0:
        raise InputError(f"{path}: holds negative or non-finite values, not probabilities")
    rows = rows.astype(np.float64)
    return torch.from_numpy((rows / np.maximum(rows.sum(-1, keepdims=True), 1e-9)).astype(np.float32))
