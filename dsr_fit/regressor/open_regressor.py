"""The open body's regressor: from keypoints, 3D landmarks, the label map and the landmark network's features."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.func import functional_call

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.body.skeleton import Skeleton
from dsr_fit.config import from_dict
from dsr_fit.errors import InputError, UsageError, one_line
from dsr_fit.io.files import check_file, replacing
from dsr_fit.labels import shows_person
from dsr_fit.observe.batch import Batch, crop_labels
from dsr_fit.observe.pose_features import LENGTH
from dsr_fit.optimise.least_squares import State
from dsr_fit.regressor.encoders import LABEL_PIXELS
from dsr_fit.regressor.open_network import (
    Placed,
    Prediction,
    RegressorInput,
    RegressorNetwork,
    Size,
    place,
)
from dsr_fit.regressor.protocol import Estimate, with_prefixes
from dsr_fit.threads import one_torch_thread

ASSET = "priors/regressor/regressor.safetensors"

EFT_LAYERS = ("refinements.1.pose", "refinements.1.shape", "refinements.1.camera")
"""Fine-tuned by default: the last refinement's heads. All weights of all steps reach little lower energies in ten times
the time (`benchmarks/eft.py`)."""


class OpenRegressor:
    """See `dsr_fit.regressor.protocol.Regressor`."""

    needs_image = False
    people_at_once = None
    eft_learning_rate = 1e-3

    def __init__(self, body: Body, path: Path | None = None) -> None:
        """`path`: weights of ours, by default those that ship.

        Raises InputError where they can't be used, UsageError where they were trained for another body.
        """
        self.name = "open" if path is None else path.name
        path = path or shipped(ASSET)
        self.network, trained_for = read_network(path)
        self.fingerprint = sha256(path)
        if trained_for != body.sha256:
            raise UsageError(
                f"the regressor {self.name!r} was trained for another body than {body.name}; "
                "leave --regressor out, or give the checkpoint that belongs to the body"
            )
        self.network.to(body.v_template.device)
        self.skeleton = body.skeleton

    @torch.no_grad()
    @one_torch_thread()
    def __call__(self, batch: Batch) -> Estimate:
        inputs = regressor_input(batch).to(self.skeleton.rest_joints.device)
        prediction = self.network(inputs, self.skeleton)[-1]
        placed = place(prediction, inputs, inputs.turns(), self.skeleton)
        return Estimate(parameters_of(placed), prediction.spread.exp(), prediction.error[:, 0].exp())

    def start(self, batch: Batch, estimate: Estimate) -> State:
        return State.of(estimate.parameters)

    def variables(self, batch: Batch, layers: tuple[str, ...]) -> PersonalWeights:
        inputs = regressor_input(batch).to(self.skeleton.rest_joints.device)
        return PersonalWeights(self.network, inputs, self.skeleton, self.movable(layers))

    def movable(self, layers: tuple[str, ...]) -> list[str]:
        """See `Regressor`. What sums up the label map and the features is never fine-tuned."""
        names = [name for name, _ in self.network.named_parameters() if not name.startswith(("labels.", "sight."))]
        steps = (prefix.rstrip(".") for prefix in _names(self.network))
        return with_prefixes(names, layers or EFT_LAYERS, self.name, steps)


class PersonalWeights:
    """Each person's copy of some of the network's weights (`Variables`).

    The label map's features, and the steps before the first one with such weights, are computed once.
    """

    def __init__(self, network: RegressorNetwork, inputs: RegressorInput, skeleton: Skeleton, names: list[str]) -> None:
        """`names` of the network's parameters to fine-tune, at least one."""
        self.network, self.inputs, self.skeleton, self.turns = network, inputs, skeleton, inputs.turns()
        self.steps: list[dict[str, Tensor]] = [
            {
                name: value.detach().expand(len(inputs), *value.shape).clone().requires_grad_()
                for name, value in step.named_parameters()
                if f"{prefix}{name}" in names
            }
            for prefix, step in zip(_names(network), network.steps(), strict=True)
        ]
        self.first = next(number for number, weights in enumerate(self.steps) if weights)
        with torch.no_grad():
            self.features = network.features(inputs)
            self.prediction = network.mean(len(inputs))
            for number in range(self.first):
                self.prediction = self._step(number, self.prediction)
            self.step_input = self._step_input(self.first, self.prediction)

    def tensors(self) -> list[Tensor]:
        return [tensor for weights in self.steps for tensor in weights.values()]

    def decode(self) -> Parameters:
        prediction = self._step(self.first, self.prediction, self.step_input)
        for number in range(self.first + 1, len(self.steps)):
            prediction = self._step(number, prediction)
        return parameters_of(place(prediction, self.inputs, self.turns, self.skeleton))

    def _step_input(self, number: int, prediction: Prediction) -> Tensor:
        return self.network.step_input(number, self.features, prediction, self.inputs, self.turns, self.skeleton)

    def _step(self, number: int, prediction: Prediction, step_input: Tensor | None = None) -> Prediction:
        step_input = self._step_input(number, prediction) if step_input is None else step_input
        return prediction.updated(functional_call(self.network.steps()[number], self.steps[number], (step_input,)))


def _names(network: RegressorNetwork) -> list[str]:
    return ["first.", *(f"refinements.{number}." for number in range(len(network.refinements)))]


def parameters_of(placed: Placed) -> Parameters:
    pose = placed.axis_angle()
    return Parameters(pose[:, :3], pose[:, 3:], placed.betas, placed.cam_t)


def regressor_input(batch: Batch) -> RegressorInput:
    """The network's input."""
    points = batch.points
    centre = torch.tensor([crop.center for crop in batch.crops])
    half = torch.tensor([crop.side / 2 for crop in batch.crops])
    focal = points.intrinsics[:, :1]
    crops = torch.cat([(centre - points.intrinsics[:, 2:]) / focal, half[:, None] / focal], 1)
    seen = points.confidence[..., None] > 0
    flat = (points.pixels - centre[:, None]) / half[:, None, None]
    flat = torch.cat([flat, points.confidence[..., None]], 2) * seen
    labels = np.stack(
        [
            crop_labels(item.labels, crop, LABEL_PIXELS)
            for item, crop in zip(batch.observations, batch.crops, strict=True)
        ]
    )
    shown = torch.tensor([bool(shows_person(each).any()) for each in labels])
    features = torch.zeros(len(batch), LENGTH, dtype=torch.float16)
    features_seen = torch.zeros(len(batch))
    for row, item in enumerate(batch.observations):
        if item.detection.features is not None:
            features[row], features_seen[row] = torch.from_numpy(item.detection.features), 1
    inputs = RegressorInput(flat, points.world, crops, torch.from_numpy(labels), shown.float(), features, features_seen)
    # A batch's landmarks stand in the full image's frame, the network's in that of a camera that looks at the crop.
    world = torch.cat([points.world @ inputs.turns().mT, points.world_confidence[..., None]], 2)
    return replace(inputs, world=world * (points.world_confidence[..., None] > 0))


def write_network(path: Path, network: RegressorNetwork, body: Body) -> None:
    """The weights in half precision, with the network's size and the SHA-256 of the body that they were trained for."""
    weights = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        # One entry: several would be written in any order, and the same weights have another hash each time.
        save_file(weights, temporary, {"regressor": json.dumps({"size": asdict(network.size), "body": body.sha256})})


def read_network(path: Path) -> tuple[RegressorNetwork, str]:
    """The network in evaluation mode and the SHA-256 of its body's file. Raises InputError for anything else."""
    check_file(path, "file of a regressor's weights")
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["regressor"])
            weights = {name: file.get_tensor(name).float() for name in list(file.keys())}
        size = from_dict(Size, described["size"])
        network, body = RegressorNetwork(size), described["body"]
        network.load_state_dict(weights)
        if not all(bool(value.isfinite().all()) for value in weights.values()):
            raise ValueError("weights that are not finite")
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, RuntimeError, UsageError) as error:
        reason = one_line(error)[:200]
        raise InputError(f"{path}: not readable weights of a regressor of ours ({reason})") from None
    return network.eval().requires_grad_(False), body
