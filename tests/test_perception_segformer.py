"""SegFormer checkpoints on disk, on a tiny one of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dsr_fit.errors import InputError
from dsr_fit.joints import empty_keypoints
from dsr_fit.labels import ATR_LABELS, ATR_TO_LABEL
from dsr_fit.observation import Detection
from dsr_fit.observe.parser import load_parser

transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def _checkpoint(folder: Path, names: tuple[str, ...]) -> None:
    config = transformers.SegformerConfig(
        num_labels=len(names), id2label=dict(enumerate(names)), depths=[1] * 4, hidden_sizes=[8] * 4,
        num_attention_heads=[1] * 4, decoder_hidden_size=8,
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config)
    model.decode_head.classifier.weight.data.zero_()
    model.decode_head.classifier.bias.data[:] = 0
    model.decode_head.classifier.bias.data[names.index("Skirt")] = 1  # skirt everywhere
    model.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def _detection() -> Detection:
    keypoints = empty_keypoints()
    keypoints[[0, 10]] = [[50, 60, 1], [70, 120, 1]]
    return Detection(keypoints)


@pytest.mark.parametrize("order", [1, -1])
def test_labels_come_by_name_within_the_window(tmp_path: Path, order: int) -> None:
    """The order of a checkpoint's labels is its own business."""
    _checkpoint(tmp_path / "clothes", ATR_LABELS[::order])
    parser = load_parser(str(tmp_path / "clothes"))
    labels = parser.parse(np.full((180, 120, 3), 90, np.uint8), _detection())
    assert parser.name == "clothes"
    inner = labels[50:130, 20:100]
    assert (inner == ATR_TO_LABEL[ATR_LABELS.index("Skirt")]).all()
    assert (labels[:40] == 0).all()


def test_other_labels_are_refused(tmp_path: Path) -> None:
    _checkpoint(tmp_path, ("road", "Skirt"))
    with pytest.raises(InputError, match="ATR's 18 labels"):
        load_parser(str(tmp_path))


def test_a_folder_without_a_checkpoint_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hf download"):
        load_parser(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    with pytest.raises(InputError, match="not a usable SegFormer"):
        load_parser(str(tmp_path))
