"""HMR: the network is the published one, its bodies land where their crops show them, and its weights can move."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import hmr_files
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bodies import stick_body
from scipy.optimize import least_squares
from synthetic_smpl import synthetic_smpl, write_npz
from torch import Tensor, nn

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, ray_rotation
from dsr_fit.errors import UsageError
from dsr_fit.joints import empty_keypoints
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.descent import Adam
from dsr_fit.regressor.hmr import CropEstimate, Head, Hmr, mean_estimate
from dsr_fit.regressor.hmr_regressor import Cameras, HmrRegressor, crop_images, load_hmr_regressor, to_full_image
from dsr_fit.regressor.protocol import Regressor
from dsr_fit.rotation import axis_angle_to_matrix, sixd_to_matrix


@cache
def smpl() -> Body:
    """A body that counts as official SMPL; only its skeleton is ever asked."""
    return replace(stick_body(), v_template=torch.zeros(6890, 3), faces=torch.zeros(13776, 3, dtype=torch.int32))


@cache
def network() -> Hmr:
    """Seeded weights, batch norm as if it had been trained, and a head that moves."""
    torch.manual_seed(0)
    made = Hmr()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_var, module.weight):
                assert value is not None
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (module.running_mean, module.bias):
                assert value is not None
                nn.init.normal_(value, std=0.1)
    for layer in (made.head.decpose, made.head.decshape, made.head.deccam):
        nn.init.normal_(layer.weight, std=2e-3)
    return made.eval()


def regressor() -> Regressor:
    return HmrRegressor(network(), smpl(), "test.pt")


def observation(seed: int = 0, box: tuple[float, float, float, float] = (60, 40, 200, 380)) -> Observation:
    """Noise in which the corners of a box (x, y, x, y) are keypoints."""
    rng = np.random.default_rng(seed)
    keypoints = empty_keypoints()
    keypoints[:4] = [(*box[:2], 1), (*box[2:], 1), (box[0], box[3], 1), (box[2], box[1], 1)]
    image = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    return Observation(image, Detection(keypoints), np.zeros((480, 640), np.uint8), "none", 800.0)


def batch_of(*observations: Observation, crop_camera: bool = False) -> Batch:
    return Batch(list(observations), crop_camera=crop_camera, keypoint_valid=torch.ones(49, dtype=torch.bool))


# The network.


def test_the_backbone_has_resnet50s_weights() -> None:
    names = {name: value for name, value in Hmr().named_parameters() if name.startswith("backbone.")}
    # The published count of ResNet-50 less its classifier's.
    assert sum(value.numel() for value in names.values()) == 25_557_032 - (2048 * 1000 + 1000)
    expected = {"backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"}
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            at = f"backbone.layer{stage}.{block}"
            expected |= {f"{at}.conv{n}.weight" for n in (1, 2, 3)}
            expected |= {f"{at}.bn{n}.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")}
        at = f"backbone.layer{stage}.0.downsample"
        expected |= {f"{at}.0.weight", f"{at}.1.weight", f"{at}.1.bias"}
    assert names.keys() == expected


def test_the_head_has_spins_weights() -> None:
    found = {name: shape for name, shape in hmr_files.shapes().items() if name.startswith("head.")}
    sizes = {
        "fc1": (2048 + 157, 1024),
        "fc2": (1024, 1024),
        "decpose": (1024, 144),
        "decshape": (1024, 10),
        "deccam": (1024, 3),
    }
    expected = {f"head.{name}.weight": (out, into) for name, (into, out) in sizes.items()}
    expected |= {f"head.{name}.bias": (out,) for name, (_, out) in sizes.items()}
    expected |= {"head.init_pose": (1, 144), "head.init_shape": (1, 10), "head.init_cam": (1, 3)}
    assert found == expected


def _normed(x: Tensor, at: str, w: dict[str, Tensor]) -> Tensor:
    mean, variance, scale, shift = (
        w[f"{at}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def _by_hand(images: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """HMR as published, layer by layer, from a dictionary of weights alone."""
    x = F.conv2d(images, w["backbone.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(_normed(x, "backbone.bn1", w)), kernel_size=3, stride=2, padding=1)
    for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(blocks):
            at = f"backbone.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.relu(_normed(F.conv2d(x, w[f"{at}.conv1.weight"]), f"{at}.bn1", w))
            y = F.relu(_normed(F.conv2d(y, w[f"{at}.conv2.weight"], stride=stride, padding=1), f"{at}.bn2", w))
            y = _normed(F.conv2d(y, w[f"{at}.conv3.weight"]), f"{at}.bn3", w)
            if block == 0:
                x = F.conv2d(x, w[f"{at}.downsample.0.weight"], stride=stride)
                x = _normed(x, f"{at}.downsample.1", w)
            x = F.relu(x + y)
    features = F.avg_pool2d(x, x.shape[-2:]).flatten(1)
    pose, shape, cam = (w[f"head.init_{name}"].repeat(len(images), 1) for name in ("pose", "shape", "cam"))
    for _ in range(3):
        y = torch.cat([features, pose, shape, cam], dim=1)
        y = y @ w["head.fc1.weight"].T + w["head.fc1.bias"]
        y = y @ w["head.fc2.weight"].T + w["head.fc2.bias"]
        pose = pose + y @ w["head.decpose.weight"].T + w["head.decpose.bias"]
        shape = shape + y @ w["head.decshape.weight"].T + w["head.decshape.bias"]
        cam = cam + y @ w["head.deccam.weight"].T + w["head.deccam.bias"]
    return pose, shape, cam


def test_the_network_is_the_published_one() -> None:
    double = copy.deepcopy(network()).double()
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = double(images)
        expected = _by_hand(images, double.state_dict())
    for one, other, start in zip(found, expected, mean_estimate(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)  # sums in another order
        assert float((one - start).abs().max()) > 1e-2  # it is not the start that agrees
        assert float((one[0] - one[1]).abs().max()) > 1e-4  # nor is the picture overlooked


def test_a_crop_of_224_px_ends_in_7_by_7() -> None:
    found = {}
    layer = network().backbone.layer4
    handle = layer.register_forward_hook(lambda _module, _args, out: found.update(shape=tuple(out.shape)))
    with torch.no_grad():
        assert network().backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 2048)
    handle.remove()
    assert found["shape"] == (1, 2048, 7, 7)


def test_the_6d_pose_is_columns_in_turn() -> None:
    """Six numbers are a0 b0 a1 b1 a2 b2 of two columns a and b, made orthonormal one after the other."""
    numbers = [0.3, -1.2, 0.8, 0.1, -0.5, 0.9]
    a, b = [numbers[0], numbers[2], numbers[4]], [numbers[1], numbers[3], numbers[5]]
    length = math.sqrt(sum(x * x for x in a))
    first = [x / length for x in a]
    along = sum(x * y for x, y in zip(first, b, strict=True))
    rest = [y - along * x for x, y in zip(first, b, strict=True)]
    length = math.sqrt(sum(x * x for x in rest))
    second = [x / length for x in rest]
    third = [
        first[1] * second[2] - first[2] * second[1],
        first[2] * second[0] - first[0] * second[2],
        first[0] * second[1] - first[1] * second[0],
    ]
    expected = torch.tensor([first, second, third], dtype=torch.float64).T
    torch.testing.assert_close(sixd_to_matrix(torch.tensor(numbers, dtype=torch.float64)), expected)
    seen = seen_bodies(1)
    seen.pose[0, 6 * 5 : 6 * 6] = torch.tensor(numbers)
    cameras = Cameras.of(batch_of(observation()), torch.device("cpu"))
    placed = to_full_image(seen, cameras, smpl().skeleton.to(dtype=torch.float64))
    found = axis_angle_to_matrix(placed.body_pose.view(23, 3)[4].double())  # body_pose leaves the root out
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)  # through single precision


# Cameras.


def seen_bodies(count: int, seed: int = 0) -> CropEstimate:
    """Bodies roughly facing the camera that fill most of their crops."""
    generator = torch.Generator().manual_seed(seed)
    mean = mean_estimate()
    pose = mean.pose + 0.2 * torch.randn(count, 144, generator=generator)
    betas = torch.randn(count, 10, generator=generator)
    cam = mean.crop_cam + 0.1 * torch.randn(count, 3, generator=generator)
    return CropEstimate(pose, betas, cam)


def crop_pixels(seen: CropEstimate, crops: list[Crop]) -> np.ndarray:
    """(B, 24, 2) where SPIN's camera has the joints, full-image pixels: written out from its definition."""
    pose = sixd_to_matrix(seen.pose.double().unflatten(1, (24, 6)))
    skeleton = smpl().skeleton.to(dtype=torch.float64)
    rest = skeleton.joints_at_rest(seen.betas.double())
    joints = skeleton.positions(skeleton.world_rotations(pose), rest).numpy()
    pixels = []
    for points, (s, tx, ty), crop in zip(joints, seen.crop_cam.double().numpy(), crops, strict=True):
        depth = points[:, 2] + 2 * 5000 / (224 * s + 1e-9)
        on_crop = 5000 * (points[:, :2] + [tx, ty]) / depth[:, None] + 112  # of 224 px
        pixels.append(np.array(crop.center) + (on_crop - 112) * crop.side / 224)
    return np.stack(pixels)


def placed_joints(parameters: Parameters) -> np.ndarray:
    """(B, 24, 3) metres in the camera frame, by the body in double precision."""
    values = [value.double() for value in parameters.tensors()]
    skeleton = smpl().skeleton.to(dtype=torch.float64)
    rotations = axis_angle_to_matrix(torch.cat(values[:2], 1).unflatten(1, (24, 3)))
    joints = skeleton.positions(skeleton.world_rotations(rotations), skeleton.joints_at_rest(values[2]))
    return (joints + values[3][:, None]).numpy()


TWO_PLACES = (observation(0, (60, 40, 200, 380)), observation(1, (420, 100, 620, 400)))


def test_the_crops_own_camera_is_exact() -> None:
    batch = batch_of(*TWO_PLACES, crop_camera=True)
    seen = seen_bodies(2)
    placed = to_full_image(seen, Cameras.of(batch, torch.device("cpu")), smpl().skeleton.to(dtype=torch.float64))
    spin = np.column_stack([seen.crop_cam[:, 1:], 2 * 5000 / (224 * seen.crop_cam[:, 0])])
    # Single precision of some 50 m, twice: 1e-7 each.
    np.testing.assert_allclose(placed.cam_t, spin, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(
        axis_angle_to_matrix(placed.global_orient), sixd_to_matrix(seen.pose[:, :6]), atol=1e-6, rtol=0
    )
    fx, fy, cx, cy = batch.points.intrinsics.double().numpy()[:, :, None].swapaxes(0, 1)
    x, y, z = placed_joints(placed).transpose(2, 0, 1)
    found = np.stack([fx * x / z + cx, fy * y / z + cy], -1)
    np.testing.assert_allclose(found, crop_pixels(seen, batch.crops), atol=2e-3)  # pixels, from single precision


def test_under_the_full_camera_no_translation_is_better() -> None:
    batch = batch_of(*TWO_PLACES)
    seen = seen_bodies(2)
    placed = to_full_image(seen, Cameras.of(batch, torch.device("cpu")), smpl().skeleton.to(dtype=torch.float64))
    targets = crop_pixels(seen, batch.crops)
    joints = placed_joints(placed)
    for row, (points, target, item) in enumerate(zip(joints, targets, batch.observations, strict=True)):
        focal, centre = item.focal_length, np.array(item.principal_point)

        def pixel_error(shift: np.ndarray, points=points, target=target, focal=focal, centre=centre) -> np.ndarray:
            moved = points + shift
            return (focal * moved[:, :2] / moved[:, 2:] + centre - target).ravel()

        def metric_error(shift: np.ndarray, points=points, target=target, focal=focal, centre=centre) -> np.ndarray:
            moved = points + shift
            return (moved[:, :2] - (target - centre) / focal * moved[:, 2:]).ravel()

        best = least_squares(metric_error, np.zeros(3), xtol=1e-14, ftol=1e-14, gtol=1e-14)
        np.testing.assert_allclose(best.x, 0, atol=2e-6)  # metres: single precision of some 5
        # Distances at each joint's depth are what is least; in pixels the optimum lies beside it.
        optimum = least_squares(pixel_error, np.zeros(3))
        ours, least = (np.sqrt(np.mean(pixel_error(shift) ** 2)) for shift in (np.zeros(3), optimum.x))
        assert ours < 1.02 * least
        assert least < 0.03 * batch.crops[row].side  # another camera than the crop's, and near it


def test_the_look_in_the_crop_is_kept() -> None:
    """Turned by the ray's rotation, so that along the ray the body shows the side that the network saw."""
    batch = batch_of(TWO_PLACES[1])
    seen = seen_bodies(1)
    placed = to_full_image(seen, Cameras.of(batch, torch.device("cpu")), smpl().skeleton.to(dtype=torch.float64))
    turn = ray_rotation(batch.crops[0], batch.focal_lengths[0], batch.principal_points[0])
    assert float((turn - torch.eye(3)).abs().max()) > 0.1
    orient = axis_angle_to_matrix(placed.global_orient.double())[0]
    torch.testing.assert_close(turn @ orient, sixd_to_matrix(seen.pose[0, :6]).double(), atol=1e-6, rtol=0)


def test_gradients_reach_everything_that_the_network_says() -> None:
    batch = batch_of(TWO_PLACES[1])
    cameras, skeleton = Cameras.of(batch, torch.device("cpu")), smpl().skeleton.to(dtype=torch.float64)
    start = CropEstimate(*(value.double() for value in seen_bodies(1)))

    def all_parameters(*values: Tensor) -> Tensor:
        return torch.cat(to_full_image(CropEstimate(*values), cameras, skeleton).tensors(), 1)

    leaves = [value.clone().requires_grad_() for value in start]
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(1, 85, generator=generator)
    gradients = torch.autograd.grad((weights * all_parameters(*leaves)).sum(), leaves)
    directions = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in start]
    for leaf, gradient, direction in zip(range(3), gradients, directions, strict=True):
        step = 1e-2  # parameters are single precision
        ends = [
            all_parameters(*(v + sign * step * direction if n == leaf else v for n, v in enumerate(start)))
            for sign in (-1, 1)
        ]
        slope = float((weights * (ends[1] - ends[0])).sum()) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=2e-2)


# Crops.


def test_the_crop_is_bilinear_and_black_outside() -> None:
    item = observation(0, (0, 100, 100, 300))  # its crop begins 70 px left of the image
    batch = batch_of(item)
    crop = batch.crops[0]
    assert crop.side == pytest.approx(240)
    images = crop_images(batch)
    assert images.shape == (1, 3, 224, 224)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = np.zeros((700, 900, 3))
    image[110:590, 130:770] = item.image / 255  # black around
    for row, column in ((0, 0), (3, 200), (111, 64), (111, 65), (111, 66), (150, 70), (223, 223)):
        x, y = (np.array([column, row]) + 0.5) * crop.side / 224 + crop.origin - 0.5 + (130, 110)
        left, top = math.floor(x), math.floor(y)
        a, b = x - left, y - top
        expected = (1 - b) * ((1 - a) * image[top, left] + a * image[top, left + 1]) + b * (
            (1 - a) * image[top + 1, left] + a * image[top + 1, left + 1]
        )
        found = images[0, :, row, column].numpy() * std + mean
        # OpenCV places samples on a grid of 1/32 px, and rounds to 1/255: neighbours of this noise differ by up to 1.
        np.testing.assert_allclose(found, expected, atol=2 / 32 + 1 / 255)


# The regressor.


def test_estimates_are_the_networks() -> None:
    batch = batch_of(*TWO_PLACES)
    images = crop_images(batch)
    estimate = regressor()(batch)
    assert estimate.spread is None
    with torch.no_grad():
        seen = network()(images)
    cameras = Cameras.of(batch, torch.device("cpu"))
    expected = to_full_image(seen, cameras, smpl().skeleton.to(dtype=torch.float64))
    for found, other in zip(estimate.parameters.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(found, other)
        assert not found.requires_grad
        assert found.dtype == torch.float32
    assert [tuple(value.shape) for value in estimate.parameters.tensors()] == [(2, 3), (2, 69), (2, 10), (2, 3)]


def test_a_checkpoint_and_an_smpl_file_make_a_regressor(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(UsageError, match="--body"):
        load_hmr_regressor(path, stick_body())  # said before a file is read
    torch.save({"model": {name: 1e-4 * value for name, value in hmr_files.weights().items()}}, path)
    body = load_body(write_npz(tmp_path / "smpl.npz", synthetic_smpl()))
    made = load_hmr_regressor(path, body)
    assert made.name == "checkpoint.pt"
    vertices = made(batch_of(TWO_PLACES[0])).parameters.pose(body).vertices()
    assert vertices.shape == (1, 6890, 3)
    assert bool(vertices.isfinite().all())


@pytest.mark.parametrize("s", [-0.5, 0.0, 1e-6, 50.0])
def test_a_camera_gone_wrong_leaves_numbers(s: float) -> None:
    seen = seen_bodies(1)
    seen.crop_cam[0, 0] = s
    cameras = Cameras.of(batch_of(TWO_PLACES[0]), torch.device("cpu"))
    placed = to_full_image(seen, cameras, smpl().skeleton.to(dtype=torch.float64))
    assert all(bool(value.isfinite().all()) for value in placed.tensors())
    assert float(placed.cam_t[0, 2]) > 0


def test_other_bodies_are_refused() -> None:
    words = "HMR's bodies are official SMPL .* give an official SMPL file with --body"
    with pytest.raises(UsageError, match=words):
        HmrRegressor(network(), stick_body(), "test.pt")
    with pytest.raises(UsageError, match=words):
        HmrRegressor(network(), load_body("open"), "test.pt")


# Its weights as variables.


def _is_batch_norms(name: str) -> bool:
    return ".bn" in name or "downsample.1" in name


def test_a_fit_of_the_weights_moves_copies_only() -> None:
    batch = batch_of(*TWO_PLACES)
    before = copy.deepcopy(network().state_dict())
    first = regressor()(batch).parameters
    variables = regressor().variables(batch, ())
    assert all(tensor.is_leaf and tensor.requires_grad for tensor in variables.tensors())
    moving = [value for name, value in network().named_parameters() if not _is_batch_norms(name)]
    assert [tensor.shape for tensor in variables.tensors()] == [value.shape for value in moving] * 2
    start = variables.decode()
    for found, expected in zip(start.tensors(), first.tensors(), strict=True):
        # One picture at a time instead of two together: other orders of sums.
        torch.testing.assert_close(found.detach(), expected, atol=1e-4, rtol=1e-4)
    optimiser = Adam(variables.tensors(), 1e-5)
    only_second = start.betas[1].sum()
    gradients = torch.autograd.grad(only_second, optimiser.tensors)
    half = len(gradients) // 2
    assert not any(bool(gradient.any()) for gradient in gradients[:half])  # one person's copy is nothing to another
    assert all(bool(gradient.any()) for gradient in gradients[half:])
    optimiser.step(gradients)
    moved = variables.decode()
    assert float(moved.betas[1].sum().detach()) < float(only_second.detach())
    torch.testing.assert_close(moved.betas[0], start.betas[0], rtol=0, atol=0)
    after = network().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in network().parameters())


@pytest.mark.parametrize(
    ("layers", "beginnings"),
    [
        (("head",), ("head.",)),
        (("head.dec", "head.fc2"), ("head.decpose", "head.decshape", "head.deccam", "head.fc2")),
        (("backbone.layer4.2", "head.deccam"), ("backbone.layer4.2", "head.deccam")),
    ],
)
def test_only_the_chosen_layers_move(layers: tuple[str, ...], beginnings: tuple[str, ...]) -> None:
    batch = batch_of(TWO_PLACES[0])
    variables = regressor().variables(batch, layers)
    chosen = {
        name: value
        for name, value in network().named_parameters()
        if name.startswith(beginnings) and not _is_batch_norms(name)
    }
    assert [tensor.shape for tensor in variables.tensors()] == [value.shape for value in chosen.values()]
    # What they are moved by is what the same network says whose weights are moved.
    generator = torch.Generator().manual_seed(0)
    deltas = [3e-3 * torch.randn(value.shape, generator=generator) for value in chosen.values()]
    other = copy.deepcopy(network())
    with torch.no_grad():
        for tensor, value, delta in zip(variables.tensors(), chosen, deltas, strict=True):
            tensor += delta
            other.get_parameter(value).add_(delta)
        moved = variables.decode()
    expected = HmrRegressor(other, smpl(), "moved")(batch).parameters
    for found, wanted in zip(moved.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(moved.betas, regressor()(batch).parameters.betas, atol=1e-4)


def test_unknown_layers_are_refused() -> None:
    batch = batch_of(TWO_PLACES[0])
    for layer in ("heads", "backbone.bn1"):  # batch norm never moves
        with pytest.raises(UsageError) as caught:
            regressor().variables(batch, ("head", layer))
        line = str(caught.value)
        assert line.startswith(f"test.pt: no weights that may move begin with {layer!r}; known: backbone.conv1, ")
        assert "backbone.layer4, head.fc1" in line
        assert "bn1" not in line.split("known: ")[1]


def test_dropout_and_batch_norm_act_as_in_evaluation() -> None:
    """Also where the caller's network was training: the same body twice, and statistics that stay."""
    training = copy.deepcopy(network()).train()
    statistics = {name: value.clone() for name, value in training.named_buffers()}
    made = HmrRegressor(training, smpl(), "test.pt")
    variables = made.variables(batch_of(TWO_PLACES[0]), ("head", "backbone.conv1"))
    once, twice = variables.decode(), variables.decode()
    assert all(torch.equal(a, b) for a, b in zip(once.tensors(), twice.tensors(), strict=True))
    assert all(torch.equal(value, statistics[name]) for name, value in training.named_buffers())


def test_the_head_starts_from_its_buffers() -> None:
    head = Head(CropEstimate(torch.rand(1, 144), torch.rand(1, 10), torch.rand(1, 3))).eval()
    for layer in (head.decpose, head.decshape, head.deccam):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, 0.25)
    with torch.no_grad():
        seen = head(torch.rand(2, 2048))
    for found, start in zip(seen, (head.init_pose, head.init_shape, head.init_cam), strict=True):
        torch.testing.assert_close(found, (start + 3 * 0.25).expand_as(found))  # three iterations
