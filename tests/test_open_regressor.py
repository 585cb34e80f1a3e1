"""The open regressor: its input, whose weights a fit moves, and which files it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scenes import observe, open_body, person

from dsr_fit.assets import shipped
from dsr_fit.body.parameters import Parameters
from dsr_fit.config import Eft, FitConfig, Stage
from dsr_fit.errors import InputError, UsageError
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.observe.batch import Batch
from dsr_fit.regressor.load import load_regressor
from dsr_fit.regressor.open_network import Dense, Norm, in_crop, place, residuals
from dsr_fit.regressor.open_regressor import ASSET, OpenRegressor, read_network, regressor_input, write_network
from dsr_fit.rotation import axis_angle_to_matrix, matrix_to_sixd

QUICK = FitConfig(mode="eft", eft=Eft(iterations=6, resolution=56, refinement=(Stage(56, 2),)))


@pytest.fixture(scope="module")
def regressor() -> OpenRegressor:
    return OpenRegressor(open_body())


@pytest.fixture(scope="module")
def people() -> list[Parameters]:
    return [person(0), replace(person(1), cam_t=torch.tensor([[-0.4, 0.2, 4.5]]))]


@pytest.fixture(scope="module")
def batch(people: list[Parameters]) -> Batch:
    valid = open_body().skeleton.keypoint_valid
    return Batch([observe(truth) for truth in people], crop_camera=False, keypoint_valid=valid)


def _joined(people: list[Parameters]) -> Parameters:
    return Parameters(*(torch.cat(parts) for parts in zip(*(one.tensors() for one in people), strict=True)))


def test_a_true_body_misses_nothing_of_what_is_seen(batch: Batch, people: list[Parameters]) -> None:
    """Pixels, rays, the crop's frame and the landmarks' axes agree: the truth as a prediction has no residual."""
    inputs, truth = regressor_input(batch), _joined(people)
    turns = inputs.turns()
    rotations = axis_angle_to_matrix(truth.full_pose.unflatten(1, (24, 3)))
    seen = torch.cat([turns[:, None] @ rotations[:, :1], rotations[:, 1:]], 1)
    pelvis = truth.cam_t + open_body().skeleton.joints_at_rest(truth.betas)[:, 0]
    camera = torch.cat([-(pelvis[:, 2:] * inputs.crop[:, 2:]).log(), in_crop(pelvis[:, None], inputs.crop)[:, 0]], 1)
    network = read_network(shipped(ASSET))[0]
    prediction = replace(network.mean(2), pose=matrix_to_sixd(seen).flatten(1), betas=truth.betas, camera=camera)
    placed = place(prediction, inputs, turns, open_body().skeleton)
    torch.testing.assert_close(placed.cam_t, truth.cam_t, atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.keypoints, truth.pose(open_body()).keypoints, atol=1e-5, rtol=0)
    assert float(residuals(placed, inputs, turns).abs().max()) < 1e-3
    moved = place(
        replace(prediction, camera=camera + torch.tensor([0.0, 0.1, 0.0])), inputs, turns, open_body().skeleton
    )
    missed = residuals(moved, inputs, turns).unflatten(1, (49, 5))
    assert (missed[:, :25, 0] < -0.15).all()  # a tenth of half the crop to the right, in units of a half
    assert float(missed[:, 25:].abs().max()) == 0  # nothing was observed there


def test_the_estimate_does_not_depend_on_who_else_is_in_the_batch(regressor: OpenRegressor, batch: Batch) -> None:
    together = regressor(batch)
    for row, observation in enumerate(batch.observations):
        alone = regressor(Batch([observation], crop_camera=False, keypoint_valid=open_body().skeleton.keypoint_valid))
        for ours, theirs in zip(alone.parameters.tensors(), together.parameters.tensors(), strict=True):
            torch.testing.assert_close(ours[0], theirs[row], atol=1e-4, rtol=1e-4)


def test_the_estimate_lies_on_the_person_and_says_how_sure_it_is(regressor: OpenRegressor, batch: Batch) -> None:
    estimate = regressor(batch)
    placed = estimate.parameters.pose(open_body()).keypoints
    inputs = regressor_input(batch)
    off = (in_crop(placed, inputs.crop) - inputs.points[..., :2]).norm(dim=-1)[:, :25] / 2 * 1.2
    assert float(off.mean()) < 0.06  # of the box
    assert estimate.spread is not None
    assert estimate.spread.shape == (2, 24)
    assert float(estimate.spread.min()) > 0.005
    assert float(estimate.spread.max()) < 2


def test_less_to_go_by_makes_it_less_sure(regressor: OpenRegressor, people: list[Parameters]) -> None:
    """Of the legs, when the picture ends at the hips."""
    valid, seen = open_body().skeleton.keypoint_valid, observe(people[0])
    keypoints, landmarks = seen.detection.keypoints.copy(), seen.detection.world_landmarks
    assert landmarks is not None
    landmarks = landmarks.copy()
    below = [10, 11, 13, 14, *range(19, 25)]
    keypoints[below], landmarks[below] = 0, 0
    cut = replace(seen, detection=replace(seen.detection, keypoints=keypoints, world_landmarks=landmarks))
    whole, half = (
        regressor(Batch([one], crop_camera=False, keypoint_valid=valid)).spread for one in (seen, cut)
    )  # fmt: skip
    assert whole is not None
    assert half is not None
    assert (half[0, [1, 2, 4, 5]] > 1.2 * whole[0, [1, 2, 4, 5]]).all()


def test_layers_with_own_weights_are_each_persons_layer() -> None:
    torch.manual_seed(0)
    dense, norm, x = Dense(5, 3), Norm(5), torch.randn(4, 5)
    weight, bias, scale, shift = torch.randn(4, 3, 5), torch.randn(4, 3), torch.randn(4, 5), torch.randn(4, 5)
    got = torch.func.functional_call(dense, {"weight": weight, "bias": bias}, (x,))
    torch.testing.assert_close(got, torch.stack([weight[i] @ x[i] + bias[i] for i in range(4)]))
    got = torch.func.functional_call(norm, {"weight": scale, "bias": shift}, (x,))
    rows = [torch.nn.functional.layer_norm(x[i], (5,), scale[i], shift[i]) for i in range(4)]
    torch.testing.assert_close(got, torch.stack(rows))
    torch.testing.assert_close(dense(x), torch.nn.functional.linear(x, dense.weight, dense.bias))


@pytest.mark.parametrize("layers", [("refinements.1.",), ("refinements.",), ("first.", "refinements.1.pose")])
def test_moving_weights_start_at_the_estimate_and_each_person_has_its_own(
    regressor: OpenRegressor, batch: Batch, layers: tuple[str, ...]
) -> None:
    variables = regressor.variables(batch, layers)
    decoded, estimate = variables.decode(), regressor(batch).parameters
    for ours, theirs in zip(decoded.tensors(), estimate.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    gradients = torch.autograd.grad(decoded.body_pose[0].square().sum(), variables.tensors(), allow_unused=True)
    used = [gradient for gradient in gradients if gradient is not None]
    assert all(float(gradient[1].abs().max()) == 0 for gradient in used)
    assert any(float(gradient[0].abs().max()) > 0 for gradient in used)
    assert all(tensor.shape[0] == 2 for tensor in variables.tensors())


def test_gradients_reach_through_every_step(regressor: OpenRegressor, batch: Batch) -> None:
    """A refinement's input depends on the fine-tuned weights: that is part of the derivative."""
    variables = regressor.variables(batch, ("first.pose.bias",))
    (bias,) = variables.tensors()
    (gradient,) = torch.autograd.grad(variables.decode().betas[0, 0], bias)
    index, step = int(gradient[0].abs().argmax()), 1e-3
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            bias[0, index] += sign * step
            values.append(float(variables.decode().betas[0, 0]))
            bias[0, index] -= sign * step
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(gradient[0, index]), rel=0.05)


def test_unknown_layers_are_refused_by_name(regressor: OpenRegressor, batch: Batch) -> None:
    with pytest.raises(UsageError, match=r"may move begin with 'decoder'; known: first, refine"):
        regressor.variables(batch, ("decoder",))


def test_eft_lowers_the_energy_and_leaves_the_pretrained_weights_alone(batch: Batch) -> None:
    slow = replace(QUICK, eft=replace(QUICK.eft, learning_rate=1e-4))  # the default needs more steps to settle
    fitter = Fitter(open_body(), slow)
    network = fitter.regressor.network  # type: ignore[attr-defined]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    totals: list[torch.Tensor] = []
    first = fitter.fit(batch.observations, lambda number, total: totals.append(total))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (totals[-1] < totals[0]).all()
    again = fitter.fit(batch.observations)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.body_pose, other.body_pose)
        assert one.stop_reason in ("iteration limit", "keypoints fitted")


def test_a_person_whose_keypoints_fit_stops(batch: Batch) -> None:
    config = replace(QUICK, eft=replace(QUICK.eft, keypoint_px=200.0))
    for result in Fitter(open_body(), config).fit(batch.observations):
        assert (result.iterations, result.stop_reason) == (0, "keypoints fitted")


def test_eft_smplify_goes_on_with_the_parameters(batch: Batch) -> None:
    eft, both = (
        Fitter(open_body(), replace(QUICK, mode=mode)).fit(batch.observations)[0] for mode in ("eft", "eft+smplify")
    )
    assert both.iterations == eft.iterations + 2
    assert both.regressor == "open"


def test_without_weights_there_is_no_eft(batch: Batch) -> None:
    kinematic = load_regressor("kinematic", open_body(), QUICK)
    with pytest.raises(UsageError, match="has no weights to fit"):
        Fitter(open_body(), QUICK, regressor=kinematic).fit(batch.observations)


def test_weights_survive_their_file_and_are_bound_to_a_body(tmp_path: Path, regressor: OpenRegressor) -> None:
    path = tmp_path / "own.safetensors"
    write_network(path, regressor.network, open_body())
    again = path.with_name("again.safetensors")
    write_network(again, regressor.network, open_body())
    assert again.read_bytes() == path.read_bytes()
    network, body = read_network(path)
    assert body == open_body().sha256
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, regressor.network.state_dict()[name])
    assert load_regressor(str(path), open_body(), FitConfig()).name == "own.safetensors"
    with pytest.raises(UsageError, match="was trained for another body than"):
        load_regressor(str(path), replace(open_body(), sha256="0" * 64), FitConfig())


def test_damaged_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    with pytest.raises(InputError, match=r"no such file of a regressor's weights: .*bad.safetensors"):
        read_network(path)
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match=r"bad.safetensors: not readable weights"):
        read_network(path)
    weights = load_file(shipped(ASSET))
    save_file(weights, path)  # without the metadata
    with pytest.raises(InputError, match=r"not readable weights"):
        read_network(path)
    weights.pop(next(iter(weights)))
    save_file(weights, path, {"regressor": '{"size": {}, "body": "x"}'})
    with pytest.raises(InputError, match="Missing key") as raised:
        read_network(path)
    assert "\n" not in str(raised.value)
