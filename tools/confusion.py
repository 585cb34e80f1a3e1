"""How well a parser's label maps agree with true ones."""

from __future__ import annotations

import numpy as np

from dsr_fit.labels import LABEL_SETS, LABELS, MC_LABELS, OCCLUDER, UNKNOWN, LabelSet

CLASSES = len(LABELS) + 1
"""The 20 labels, then the occluder."""


class Confusion:
    """Confusion matrix of pixels (true, predicted) over many label maps, without pixels whose truth is unknown."""

    def __init__(self) -> None:
        self.counts = np.zeros((CLASSES, CLASSES), np.int64)

    def add(self, found: np.ndarray, true: np.ndarray) -> None:
        """Add a pair of maps of labels or classes (occluder 20 or 254); predicted unknown counts as background."""
        known = true != UNKNOWN
        rows = np.where(true == OCCLUDER, CLASSES - 1, true)[known].astype(np.int64)
        columns = np.where(found == OCCLUDER, CLASSES - 1, np.where(found == UNKNOWN, 0, found))[known].astype(np.int64)
        self.counts += np.bincount(rows * CLASSES + columns, minlength=CLASSES**2).reshape(CLASSES, CLASSES)

    def iou(self) -> np.ndarray:
        """(21,) intersection over union of each class; NaN where neither map has it."""
        return _iou(self.counts)

    def merged_iou(self, label_set: LabelSet) -> np.ndarray:
        """(K,) IoU of a label set's classes. True occluder pixels are left out, predicted ones are background."""
        table = np.zeros((CLASSES, label_set.num_classes), np.int64)
        table[:-1] = label_set.membership()
        table[-1, 0] = 1
        return _iou(table[:-1].T @ self.counts[:-1] @ table)

    def person_iou(self) -> float:
        """IoU of all the person's labels together; true occluder pixels are left out."""
        counts = self.counts[:-1]
        both = counts[1:, 1:-1].sum()
        return float(both / max(counts[1:].sum() + counts[0, 1:-1].sum(), 1))

    def scores(self) -> dict[str, float]:
        """The scores of a parser."""
        iou = self.iou()
        hidden = self.counts[-1]
        return {
            "person_iou": self.person_iou(),
            "paper4_iou": float(np.nanmean(self.merged_iou(LABEL_SETS["paper4"]))),
            "code8_iou": float(np.nanmean(self.merged_iou(LABEL_SETS["code8"]))),
            "mc_iou": float(np.nanmean(iou[list(MC_LABELS)])),
            "occluder_recall": float(hidden[-1] / max(hidden.sum(), 1)),
            "occluder_precision": float(hidden[-1] / max(self.counts[:, -1].sum(), 1)),
        }


def _iou(counts: np.ndarray) -> np.ndarray:
    both = np.diagonal(counts).astype(float)
    union = counts.sum(0) + counts.sum(1) - both
    return np.divide(both, union, out=np.full(len(counts), np.nan), where=union > 0)
