"""The networks beside the fit: landmark network and parser, EFT of a ResNet-50, training; and the whole pipeline."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import batch as batches
import hmr
import numpy as np
import torch
from clock import least

from dsr_fit.body.files import load_body
from dsr_fit.dataset.local import GPU_THREADS
from dsr_fit.dataset.observing import Observer
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry
from dsr_fit.io.images import read_image
from dsr_fit.observe.blazepose import INPUT
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.device_batches import BATCH
from dsr_fit.observe.landmarks import LandmarkNetwork, Region
from dsr_fit.observe.network_parser import NetworkParser, fused, read_decoder
from dsr_fit.observe.parsing_network import MASKS, POINTS
from dsr_fit.observe.perception import Perception
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.hmr import Hmr
from dsr_fit.regressor.hmr_regressor import HmrRegressor
from dsr_fit.regressor.open_network import RegressorNetwork
from gpu_steps.setup import Results, Setup, has_regressor


def perception(setup: Setup) -> Results:
    """Landmark network and parser by the size of the batch; whether a look depends on who shares its batch; pictures
    observed a second, from JPEG to packed label map, by threads that share the batches."""
    yield from _forward_passes(setup)
    photos = sorted(setup.people.glob("*.jpg"))
    yield {"looks": _looks(setup, photos)}
    batch = 2 if setup.device == "cpu" else None  # the device's path, on a CPU too
    perceive = Perception(
        PersonDetector(device=setup.device, batch=batch), NetworkParser(None, "fast", setup.device, batch)
    )
    observe = Observer(Settings(device=setup.device), setup.people, perceive)
    observe(Entry(photos[0].name))
    for threads in (1, 2) if setup.quick else (1, 4, GPU_THREADS):
        wanted = 2 if setup.quick else 16 * threads
        entries = [Entry(photos[number % len(photos)].name) for number in range(wanted)]
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            seen = list(pool.map(observe, entries))
        seconds = time.perf_counter() - started
        found = sum(one.found is not None for people in seen for one in people)
        yield {f"{threads} threads": {"pictures_a_second": round(wanted / seconds, 2), "people": found}}


def _looks(setup: Setup, photos: Sequence[Path]) -> dict[str, Any]:
    """At the whole of each picture, alone and in a full batch, in two orders; and on the CPU."""
    network = LandmarkNetwork(device=setup.device, batch=2 if setup.device == "cpu" else None)
    people = []
    for path in photos[: 2 if setup.quick else BATCH]:
        image = read_image(path)[0]
        height, width = image.shape[:2]
        people.append((image, Region((width / 2, height / 2), float(max(width, height)), 0.0)))
    alone = [network.look([one])[0] for one in people]
    orders = [network.look(people), network.look(people[::-1])[::-1]]
    plain = LandmarkNetwork().look(people)
    gaps = [np.abs(one.points[:, :2] - other.points[:, :2]).max() for one, other in zip(alone, plain, strict=True)]
    return {
        "same alone and in company": all(
            np.array_equal(one.points, other.points) and np.array_equal(one.mask, other.mask)
            for seen in orders
            for one, other in zip(alone, seen, strict=True)
        ),
        "landmarks from the CPU's, largest px": float(max(gaps)),
    }


@torch.inference_mode()
def _forward_passes(setup: Setup) -> Results:
    """Milliseconds of one."""
    encoder = LandmarkNetwork("heavy", device=setup.device).network
    decoder = fused(read_decoder()).to(setup.device)
    for count in setup.batches[:-1]:
        picture = torch.rand(count, 3, INPUT, INPUT, device=setup.device).contiguous(memory_format=torch.channels_last)
        seen = picture.to(next(encoder.parameters()).dtype)
        features = [each.float() for each in encoder.encoder(seen)]
        points = torch.rand(count, len(POINTS), 3, device=setup.device)
        masks = torch.rand(count, MASKS, INPUT, INPUT, device=setup.device)
        parts = {
            "landmark network": lambda s=seen: encoder.read(encoder.encoder(s)),
            "parser": lambda p=picture, f=features, o=points, m=masks: decoder(p, f, o, m),
        }
        yield {
            str(count): {
                f"{name}, ms": round(least(part, setup.device, repeats=20, seconds=setup.seconds), 3)
                for name, part in parts.items()
            }
        }


def eft(setup: Setup) -> Results:
    """Twenty iterations of EFT on a ResNet-50's weights, seconds a person: all layers, and the head's alone."""
    torch.manual_seed(0)
    body = hmr.smpl_sized()
    batch = hmr.seen(body)
    moved = body.to(setup.device)
    regressor = HmrRegressor(Hmr().to(setup.device), moved, "seeded")
    for name, layers in (("head", ("head",)), ("all", ())):
        runs = [hmr.fine_tune(regressor, moved, batch, layers) for _ in range(1 if setup.quick else 3)]
        best = min(runs, key=lambda run: run["whole"])
        yield {f"{name} layers": {f"{part}_s": round(value, 4) for part, value in best.items()}}


def training(setup: Setup) -> Results:
    """Training steps a second of the open regressor on bare synthetic bodies; data are made beforehand."""
    from dsr_fit.training.open_module import OpenTraining, TrainingBatch
    from dsr_fit.training.settings import TrainSettings
    from dsr_fit.training.synthetic.samples import Mix, Sampler

    body = load_body()
    sampler = Sampler(None, load_poses(), body.skeleton, Mix())
    torch.manual_seed(0)
    count = 8 if setup.quick else 512
    training = OpenTraining(RegressorNetwork(), body, load_semantic_prior(body), TrainSettings(out=setup.work))
    training.to(setup.device).train()
    training.body = body.to(setup.device)
    training.shape_metric = training.shape_metric.to(setup.device)
    training.log_losses = lambda *_, **__: None  # type: ignore[method-assign]  # no trainer listens
    optimiser = torch.optim.AdamW(training.parameters(), 1e-4)
    inputs, truth = sampler.batch(count, np.random.default_rng(0))
    batch = TrainingBatch((inputs.to(setup.device), type(truth)(*(each.to(setup.device) for each in truth))), None)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        training.loss(batch)[0].backward()
        optimiser.step()

    taken = least(step, setup.device, repeats=20, seconds=10 * setup.seconds)
    yield {"people a step": count, "step_ms": round(taken, 2), "steps_a_second": round(1000 / taken, 2)}


def pipeline(setup: Setup) -> Results:
    """`dsr-fit batch` as a user runs it, from JPEG to shard, once to warm up and once to be measured."""
    photos = sorted(setup.people.glob("*.jpg"))
    wanted = 1 if setup.quick else 32 * len(photos)
    folder = setup.work / "photos"
    folder.mkdir()
    for number in range(wanted):
        shutil.copy(photos[number % len(photos)], folder / f"{number:05d}.jpg")
    options = ["--device", setup.device, *(() if has_regressor() else ("--regressor", "kinematic"))]
    if setup.quick:
        options += ["--stages.0.iterations", "5"]
    else:
        _warm_up(setup, folder, options)
    yield batches.measure(folder, setup.work / "shards", *options, "--batch-size", "2" if setup.quick else "64")


def _warm_up(setup: Setup, folder: Path, options: list[str]) -> None:
    names = setup.work / "few.txt"
    names.write_text("00000.jpg\n")
    batches.measure(names, setup.work / "warm", "--images", str(folder), *options, "--stages.0.iterations", "1")
