"""SegFormer checkpoints for clothes from Hugging Face (ATR's 18 labels), where the user has one on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from dsr_fit.errors import InputError, one_line
from dsr_fit.labels import ATR_LABELS, ATR_TO_LABEL, OTHER_PERSON
from dsr_fit.observation import Detection
from dsr_fit.observe.crop import window_around

DOWNLOAD = "hf download mattmdjaga/segformer_b2_clothes --local-dir FOLDER"
"""The command that downloads a SegFormer for clothes."""


class SegformerParser:
    """Labels a window around the person. It isn't told which person is meant: other people are labelled too."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError where `transformers` or the checkpoint is missing, or it knows other labels than ATR's."""
        try:
            import transformers
        except ImportError:
            raise InputError(
                "a SegFormer parser needs the package transformers: pip install transformers; `--parser open` doesn't"
            ) from None
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder}: holds no config.json of a SegFormer; `{DOWNLOAD}` gets one")
        self.name = folder.resolve().name
        try:
            self._processor = transformers.SegformerImageProcessor.from_pretrained(folder, local_files_only=True)
            self._model = transformers.SegformerForSemanticSegmentation.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
        except (ImportError, OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = one_line(error)
            raise InputError(f"{folder}: not a usable SegFormer ({reason}); `{DOWNLOAD}` gets one") from None
        names = {int(index): _plain(name) for index, name in (self._model.config.id2label or {}).items()}
        missing = [name for name in ATR_LABELS if _plain(name) not in names.values()]
        if missing:
            raise InputError(f"{folder}: knows no label {missing[0]!r}; expected ATR's 18 labels")
        order = {_plain(name): number for number, name in enumerate(ATR_LABELS)}
        self._label = np.zeros(max(names) + 1, np.uint8)
        for index, name in names.items():
            if name in order:
                self._label[index] = ATR_TO_LABEL[order[name]]

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) uint8 labels; background outside the window around the person."""
        import torch

        height, width = image.shape[:2]
        window = window_around(detection, (height, width))
        left, top = (max(0, int(value)) for value in window.origin)
        right, bottom = (
            min(limit, max(0, int(np.ceil(value + window.side))))
            for limit, value in zip((width, height), window.origin, strict=True)
        )
        crop = image[top:bottom, left:right]
        labels = np.zeros((height, width), np.uint8)
        if crop.size == 0:
            return labels
        with torch.inference_mode():
            logits = self._model(**self._processor(images=crop, return_tensors="pt")).logits
            fine = torch.nn.functional.interpolate(logits, crop.shape[:2], mode="bilinear", align_corners=False)
        labels[top:bottom, left:right] = self._label[fine[0].argmax(0).numpy()]
        if detection.others is not None:  # the network knows nobody apart
            labels[detection.others] = OTHER_PERSON
        return labels


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
