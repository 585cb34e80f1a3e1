"""How well a parser's label maps agree with true ones."""

from __future__ import annotations

import numpy as np

from dsr_fit.labels import LABEL_SETS, LABELS, MC_LABELS, UNKNOWN, LabelSet
from dsr_fit.observe.parsing_network import CLASSES, LABEL_CLASSES

OTHER, HIDING = CLASSES - 2, CLASSES - 1
"""Classes of another person and of an occluder."""


class Confusion:
    """Confusion matrix of pixels (true, predicted) over many label maps, without pixels whose truth is unknown."""

    def __init__(self) -> None:
        self.counts = np.zeros((CLASSES, CLASSES), np.int64)

    def add(self, found: np.ndarray, true: np.ndarray) -> None:
        """Add a pair of label maps; predicted unknown counts as background."""
        self.add_classes(np.where(found == UNKNOWN, 0, LABEL_CLASSES[found]), true)

    def add_classes(self, found: np.ndarray, true: np.ndarray) -> None:
        """The same of predicted classes 0..21 and true labels."""
        known = true != UNKNOWN
        rows, columns = LABEL_CLASSES[true[known]].astype(np.int64), found[known].astype(np.int64)
        self.counts += np.bincount(rows * CLASSES + columns, minlength=CLASSES**2).reshape(CLASSES, CLASSES)

    def iou(self) -> np.ndarray:
        """(22,) intersection over union of each class; NaN where neither map has it."""
        return _iou(self.counts)

    def merged_iou(self, label_set: LabelSet) -> np.ndarray:
        """(K,) IoU of a label set's classes. True occluders and other people are left out, predicted ones are
        background."""
        table = np.zeros((CLASSES, label_set.num_classes), np.int64)
        table[: len(LABELS)] = label_set.membership()
        table[len(LABELS) :, 0] = 1
        return _iou(table[: len(LABELS)].T @ self.counts[: len(LABELS)] @ table)

    def person_iou(self) -> float:
        """IoU of all the person's labels together; true occluders and other people are left out."""
        counts = self.counts[: len(LABELS)]
        both = counts[1:, 1 : len(LABELS)].sum()
        return float(both / max(counts[1:].sum() + counts[0, 1 : len(LABELS)].sum(), 1))

    def scores(self) -> dict[str, float]:
        """The scores of a parser."""
        iou, hidden, others = self.iou(), self.counts[HIDING], self.counts[OTHER]
        return {
            "person_iou": self.person_iou(),
            "paper4_iou": float(np.nanmean(self.merged_iou(LABEL_SETS["paper4"]))),
            "code8_iou": float(np.nanmean(self.merged_iou(LABEL_SETS["code8"]))),
            "mc_iou": float(np.nanmean(iou[list(MC_LABELS)])),
            "occluder_recall": float(hidden[HIDING] / max(hidden.sum(), 1)),
            "occluder_precision": float(hidden[HIDING] / max(self.counts[:, HIDING].sum(), 1)),
            "others_leak": float(others[1 : len(LABELS)].sum() / max(others.sum(), 1)),
        }


def _iou(counts: np.ndarray) -> np.ndarray:
    both = np.diagonal(counts).astype(float)
    union = counts.sum(0) + counts.sum(1) - both
    return np.divide(both, union, out=np.full(len(counts), np.nan), where=union > 0)
