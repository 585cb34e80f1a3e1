"""HMR's training: what its losses are at the truth, that it learns, is taken up again, and is read back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_people import known_people, observation_of
from PIL import Image
from scenes import open_body
from synthetic_smpl import synthetic_smpl
from torch import Tensor, nn
from training_parts import settings_of

pytest.importorskip("lightning")

import lightning
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from dsr_fit.body.files import load_body
from dsr_fit.camera import fit_crop_camera
from dsr_fit.config import FitConfig, Semantics
from dsr_fit.errors import InputError
from dsr_fit.observe.batch import Batch
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.hmr import CropEstimate, Hmr, mean_estimate
from dsr_fit.regressor.hmr_regressor import Cameras, HmrRegressor, to_full_image
from dsr_fit.regressor.load import load_regressor
from dsr_fit.regressor.resnet import FEATURES
from dsr_fit.rotation import axis_angle_to_matrix, matrix_to_sixd
from dsr_fit.synthetic import generate
from dsr_fit.synthetic.dataset import write_case
from dsr_fit.training import hmr_data
from dsr_fit.training.hmr_crops import CropBatch, CropChange, sample, stacked
from dsr_fit.training.hmr_data import HmrData, read_rendered_people
from dsr_fit.training.hmr_module import RELEASED, HmrTraining
from dsr_fit.training.pictures import PANEL
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.settings import LossWeights, TrainSettings
from dsr_fit.training.train import EpochReport

QUICK = settings_of(steps=6, epoch=3, batch=2, seed=5, dsr_after=0.1)


class Small(nn.Module):
    """A backbone of two layers, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(3, 8, 16, 16), nn.BatchNorm2d(8), nn.Linear(8 * 14 * 14, FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.conv(images))).flatten(1))


def _network(seed: int = 0) -> Hmr:
    torch.manual_seed(seed)
    network = Hmr()
    network.backbone = Small()  # type: ignore[assignment]
    return network


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> PseudoLabels:
    return known_people(tmp_path_factory.mktemp("people"))


def _training(settings: TrainSettings = QUICK, network: Any = None) -> HmrTraining:
    return HmrTraining(network or _network(), open_body(), load_semantic_prior(open_body()), settings)


def _crops(people: PseudoLabels, change: CropChange | None = None) -> CropBatch:
    return stacked([sample(people, row, change or CropChange()) for row in range(len(people))])


def _truth(crops: CropBatch) -> CropEstimate:
    """What a network that knew everything would say: the true body under the crop camera that suits it best."""
    points = open_body().skeleton.keypoints(crops.rotations, crops.betas).double()
    cams = [fit_crop_camera(*pair)[0] for pair in zip(points, crops.keypoints[..., :2].double(), strict=True)]
    return CropEstimate(matrix_to_sixd(crops.rotations).flatten(1), crops.betas, torch.stack(cams).float())


# --- Losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [CropChange(), CropChange(angle=0.6, scale=0.9, mirrored=True)], ids=["plain", "changed"]
)
def test_the_truth_costs_next_to_nothing(people: PseudoLabels, change: CropChange) -> None:
    """What is left in the image is what separates SPIN's camera from the image's: some pixels of 224."""
    crops = _crops(people, change)
    options = replace(QUICK, dsr_after=0.0)
    total, means = _training(options).losses(_truth(crops), crops)
    assert means["pose"] < 1e-10
    assert means["betas"] == 0
    assert means["keypoints_3d"] < 1e-10
    assert means["keypoints_2d"] < (3 / 112) ** 2
    assert math.isfinite(total)
    # Labels are the body's own most likely ones. A body that is moved by a tenth of the crop costs more.
    moved = _truth(crops)
    moved.crop_cam[:, 1] += 0.1 / moved.crop_cam[:, 0]
    _, others = _training(options).losses(moved, crops)
    assert means["dsr_c"] < 0.3 * others["dsr_c"]
    assert means["dsr_mc"] < 0.7 * others["dsr_mc"]


def test_each_loss_pulls_the_network(people: PseudoLabels) -> None:
    """Gradients are finite, and reach the outputs that the loss is about."""
    about = {
        "keypoints_2d": "pose betas crop_cam", "keypoints_3d": "pose betas", "pose": "pose", "betas": "betas",
        "camera": "crop_cam", "dsr_mc": "pose betas crop_cam", "dsr_c": "pose betas crop_cam",
        "silhouette": "pose betas crop_cam",
    }  # fmt: skip
    crops = _crops(people)
    training = _training(replace(QUICK, dsr_after=0.0, weights=LossWeights(silhouette=1.0)))
    start = mean_estimate()
    for name, outputs in about.items():
        seen = CropEstimate(*(value.expand(3, -1).clone().requires_grad_() for value in start))
        gradients = torch.autograd.grad(training.losses(seen, crops)[1][name], list(seen), allow_unused=True)
        for field, gradient in zip(CropEstimate._fields, gradients, strict=True):
            if field in outputs.split():
                assert gradient is not None
                assert bool(gradient.isfinite().all())
                assert float(gradient.abs().max()) > 0, (name, field)
            else:
                # Keypoints are about the mid-hip, 50 m from the camera: all but the rounding cancels.
                assert gradient is None or float(gradient.abs().max()) < 1e-6, (name, field)


def test_people_without_a_body_teach_their_keypoints_alone(people: PseudoLabels) -> None:
    """And, where somebody has seen them, their landmarks."""
    stranger = replace(people, has_body=np.zeros(3, bool), full_pose=0 * people.full_pose, betas=0 * people.betas)
    crops = _crops(stranger)
    truth = _truth(_crops(people))
    training = _training(replace(QUICK, weights=LossWeights(dsr_mc=0, dsr_c=0)))
    _, means = training.losses(truth, crops)
    assert means["pose"] == means["betas"] == 0
    assert means["keypoints_3d"] < 1e-10
    blind = crops._replace(world=0 * crops.world)
    far = truth._replace(betas=truth.betas + 3)
    assert training.losses(far, blind)[1]["keypoints_3d"] == 0
    assert training.losses(far, crops)[1]["keypoints_3d"] > 1e-4


def test_rendered_losses_start_late(people: PseudoLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = _crops(people)
    training = _training(replace(QUICK, steps=10, dsr_after=0.5))
    seen = CropEstimate(*(value.expand(3, -1) for value in mean_estimate()))
    begun = []
    for step in range(10):
        monkeypatch.setattr(HmrTraining, "global_step", property(lambda self, step=step: step))
        begun.append("dsr_mc" in training.losses(seen, crops)[1])
    assert begun == [False] * 5 + [True] * 5


def test_the_released_form_skips_pictures_without_minimal_clothing(people: PseudoLabels) -> None:
    crops = _crops(people)
    seen = CropEstimate(*(value.expand(3, -1) for value in mean_estimate()))
    bare = crops._replace(
        labels=torch.where(crops.labels > 0, torch.tensor(5, dtype=torch.uint8), crops.labels),
        small_labels=torch.where(crops.small_labels > 0, torch.tensor(5, dtype=torch.uint8), crops.small_labels),
    )
    for semantics, skipped in ((RELEASED, True), (Semantics(), False)):
        training = _training(replace(QUICK, dsr_after=0.0, semantics=semantics))
        assert (training.losses(seen, bare)[1]["dsr_c"] == 0) == skipped
        assert training.losses(seen, crops)[1]["dsr_c"] > 0


# --- Training -------------------------------------------------------------------------------------


class _Losses(Callback):
    """The loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
        self.values.append(float(outputs["loss"].detach()))


class _Killed(Callback):
    """Ends the run in the middle of its second epoch."""

    def on_train_batch_start(self, trainer: Any, module: Any, *rest: Any) -> None:
        if trainer.global_step == 4:
            raise KeyboardInterrupt


def _fit(
    work: Path, training: HmrTraining, people: PseudoLabels, *callbacks: Callback, resume: bool = False
) -> list[float]:
    losses = _Losses()
    trainer = lightning.Trainer(
        max_epochs=training.settings.epochs, reload_dataloaders_every_n_epochs=1,
        accelerator="cpu", devices=1, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, logger=CSVLogger(work, name="log", version=0),
        callbacks=[
            losses,
            EMAWeightAveraging(decay=0.9),
            ModelCheckpoint(work, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False),
            *callbacks,
        ],
        log_every_n_steps=1, gradient_clip_val=1.0,
    )  # fmt: skip
    data = HmrData(people, None, training.settings)
    trainer.fit(training, datamodule=data, ckpt_path=str(work / "last.ckpt") if resume else None)
    return losses.values


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lightning advises more workers, and remarks on every folder that exists."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(people: PseudoLabels, tmp_path: Path) -> None:
    """Bit for bit; the last epoch is a short one, and the rendered losses begin on the way."""
    options = replace(QUICK, steps=8, dsr_after=0.5)
    whole = _training(options)
    losses = _fit(tmp_path / "whole", whole, people)
    assert len(losses) == 8
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        _fit(tmp_path / "killed", _training(options), people, _Killed())
    resumed = _training(options, network=_network(seed=9))  # its weights come from the checkpoint
    again = _fit(tmp_path / "killed", resumed, people, resume=True)
    assert again == losses[3:]
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_it_learns_two_people_by_heart(people: PseudoLabels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmr_data, "draw", lambda rng: CropChange())
    options = replace(QUICK, steps=40, epoch=40, dsr_after=1.0)
    losses = _fit(tmp_path, _training(options), people.rows([0, 1]))
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])


def test_every_epoch_leaves_a_picture(people: PseudoLabels, tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from lightning.pytorch.loggers import TensorBoardLogger

    settings = replace(QUICK, out=tmp_path)
    training, data = _training(settings), HmrData(people, None, settings)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, logger=TensorBoardLogger(tmp_path, name="log", version=0), log_every_n_steps=1,
        callbacks=[EpochReport(settings, data, None)],
    )  # fmt: skip
    trainer.fit(training, datamodule=data)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["epoch-0001.png", "epoch-0002.png"]
    with Image.open(tmp_path / "pictures" / names[1]) as picture:
        assert picture.size == (6 * PANEL, 2 * PANEL)
    events = tensorboard.EventAccumulator(str(tmp_path / "log" / "version_0"))
    events.Reload()
    assert len(events.Images("people")) == 2
    assert {"loss", "loss_pose", "loss_keypoints_2d"} <= set(events.Tags()["scalars"])


def test_the_picture_shows_bodies_where_they_are(people: PseudoLabels) -> None:
    """Of the truth: the body's colour on the person, and the crop everywhere else."""
    crops = _crops(people)
    picture = HmrData(people, None, QUICK).picture(_training(network=_Knowing(_truth(crops))))
    assert picture.shape == (2 * PANEL, 6 * PANEL, 3)
    for row, labels in enumerate(crops.labels.numpy()):
        y, x = PANEL * (row // 2), 3 * PANEL * (row % 2)
        crop, _, over = (picture[y : y + PANEL, x + k * PANEL : x + (k + 1) * PANEL].astype(int) for k in range(3))
        changed, person = (crop != over).any(-1), (labels > 0) & (labels < 20)
        assert (changed & person).sum() / (changed | person).sum() > 0.85


class _Knowing(nn.Module):
    """Says of each crop, whatever it shows, what it was told to."""

    def __init__(self, seen: CropEstimate) -> None:
        super().__init__()
        self.seen, self.weight = seen, nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> CropEstimate:
        return CropEstimate(*(value + self.weight for value in self.seen))


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_people_who_are_watched_judge_the_training_and_teach_nothing(people: PseudoLabels, precision: Any) -> None:
    """The truth has next to no error; a person whose body isn't known counts by the keypoints alone."""
    learnt, watched = people.rows([0]), people.rows([1, 2])
    data = HmrData(learnt, None, QUICK, watched)
    assert [len(batch.images) for batch in data.val_dataloader()] == [2]
    assert all(source is learnt for number in range(4) for source, _ in data.people(number))
    torch.testing.assert_close(data.pictured().betas, torch.from_numpy(watched.betas))
    truth = _truth(_crops(watched))

    def scores(seen: CropEstimate, watched: PseudoLabels) -> dict[str, float]:
        trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, precision=precision)
        data = HmrData(learnt, None, QUICK, watched)
        return trainer.validate(_training(network=_Knowing(seen)), data, verbose=False)[0]  # type: ignore[return-value]

    right = scores(truth, watched)
    assert right["keypoint_error_rel_photos"] < 0.02  # what separates SPIN's camera from the image's
    assert max(right["mpjpe_photos"], right["pa_mpjpe_photos"]) < 0.1
    assert right["root_angle_photos"] < 0.1
    turned = matrix_to_sixd(axis_angle_to_matrix(torch.tensor([0.0, 0.3, 0.0])))
    wrong = scores(truth._replace(pose=torch.cat([turned.expand(2, 6), truth.pose[:, 6:]], 1)), watched)
    assert wrong["mpjpe_photos"] > 50
    assert wrong["pa_mpjpe_photos"] < 0.1
    half = replace(watched, has_body=np.array([True, False]), betas=watched.betas + [[0.0], [9.0]])
    assert scores(truth, half)["mpjpe_photos"] == pytest.approx(right["mpjpe_photos"], abs=0.1)
    nobody = scores(truth, replace(watched, has_body=np.zeros(2, bool)))
    assert set(nobody) == {"keypoint_error_rel_photos"}
    assert not list(HmrData(learnt, None, QUICK).val_dataloader())


# --- Rendered people ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for seed in (0, 1):
        write_case(folder, generate(seed, painted=False))
    return folder


def test_rendered_people_hold_the_open_bodys_truth(cases: Path) -> None:
    body = open_body()
    people = read_rendered_people(cases, body)
    assert people.has_body.all()
    joints = people.parameters([0, 1]).pose(body).keypoints.numpy()
    for row, seed in enumerate((0, 1)):
        case = generate(seed, painted=False)
        seen = case.keypoint_visibility
        pixels = joints[row, :, :2] / joints[row, :, 2:] * people.intrinsics[row, 0] + people.intrinsics[row, 1:]
        np.testing.assert_allclose(people.keypoints[row, seen, :2], pixels[seen], atol=0.1)
        np.testing.assert_allclose(people.world[row, :, :3], joints[row] - joints[row, 8], atol=1e-3)
        assert (people.keypoints[row, ~seen] == 0).all()
        np.testing.assert_array_equal(people.image(row), case.image)
        labels = people.labels(row)
        assert ((labels == case.labels) | (labels == 0)).all()
        assert (labels > 0).sum() > 0.85 * (case.labels > 0).sum()


def test_rendered_people_of_whom_nothing_is_seen_are_an_error(tmp_path: Path) -> None:
    write_case(tmp_path, replace(generate(0, painted=False), keypoint_visibility=np.zeros(49, bool)))
    with pytest.raises(InputError, match="nobody in it has 4 visible keypoints"):
        read_rendered_people(tmp_path, open_body())


def test_rendered_people_teach_other_bodies_no_parameters(cases: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "smpl.npz", **synthetic_smpl())  # type: ignore[arg-type]
    people = read_rendered_people(cases, load_body(tmp_path / "smpl.npz"))
    assert not people.has_body.any()
    assert not people.full_pose.any()
    assert people.world[..., 3].all()


# --- Checkpoints ----------------------------------------------------------------------------------


def test_what_was_learnt_is_a_regressor(people: PseudoLabels, tmp_path: Path) -> None:
    """A ResNet-50 after a step, written by SPIN's names and read without running code; it says of a person in a fit
    what it said of the crop in training."""
    np.savez(tmp_path / "smpl.npz", **synthetic_smpl())  # type: ignore[arg-type]
    body = load_body(tmp_path / "smpl.npz")
    torch.manual_seed(0)
    weights = LossWeights(dsr_mc=0, dsr_c=0)
    training = HmrTraining(Hmr(), body, None, replace(QUICK, steps=1, epoch=1, learning_rate=1e-4, weights=weights))
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    _fit(tmp_path / "work", training, people.rows([0, 1]))
    network = training.network
    moved = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert {name.split(".")[0] for name in moved} == {"backbone", "head"}
    assert {"backbone.bn1.running_mean", "backbone.layer4.2.conv3.weight", "head.decpose.weight"} <= set(moved)
    assert not [name for name in moved if ".init_" in name]

    path = tmp_path / "regressor.pt"
    training.write(path)
    stored = torch.load(path, weights_only=True)["model"]
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "fc1.weight", "decpose.bias", "init_cam"} <= set(stored)
    regressor = load_regressor(str(path), body, FitConfig())
    assert isinstance(regressor, HmrRegressor)
    for name, value in regressor._network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, network.state_dict()[name]), name

    batch = Batch(
        [observation_of(people, row, with_image=True) for row in (0, 1)],
        crop_camera=False,
        keypoint_valid=torch.ones(49),
    )
    found = regressor(batch).parameters
    with torch.no_grad():
        seen = network.eval()(_crops(people.rows([0, 1])).images)
    expected = to_full_image(seen, Cameras.of(batch, torch.device("cpu")), body.skeleton.to(dtype=torch.float64))
    for value, other in zip(found.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(value, other, atol=2e-3, rtol=2e-3)  # crops differ by a grey level here and there


def test_the_truth_in_the_crop_is_the_truth_in_the_image(people: PseudoLabels) -> None:
    """What is learnt from a label is, as an estimate in a fit, the label again."""
    crops = _crops(people)
    batch = Batch(
        [observation_of(people, row) for row in range(len(people))], crop_camera=False, keypoint_valid=torch.ones(49)
    )
    skeleton = open_body().skeleton.to(dtype=torch.float64)
    found = to_full_image(_truth(crops), Cameras.of(batch, torch.device("cpu")), skeleton)
    pose = torch.from_numpy(people.full_pose).unflatten(1, (24, 3))
    torch.testing.assert_close(
        axis_angle_to_matrix(found.full_pose.unflatten(1, (24, 3))), axis_angle_to_matrix(pose), atol=1e-5, rtol=0
    )
    # SPIN's camera misses the image's by about 1.5 % of the box, and depth is what it knows least.
    assert float((found.cam_t - torch.from_numpy(people.cam_t)).norm(dim=1).max()) < 0.2
