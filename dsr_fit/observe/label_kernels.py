"""The kernel that decides labels at an image's pixels."""

from __future__ import annotations

import numpy as np

from dsr_fit.compilation import kernel


@kernel(quick=True)
def decide(logits, best, matrix, left, top, classes):
    """The class of the largest logit at each pixel's centre into zeroed classes (H, W), the part of an image that
    starts at (left, top).

    logits (S, S, C) of a crop, interpolated; best (S, S) the class of each cell; matrix (2, 3) from pixels of the image
    to cells of the crop. Where the cells around a pixel agree, so does what lies between them.
    """
    size, count = logits.shape[0], logits.shape[2]
    for i in range(classes.shape[0]):
        for j in range(classes.shape[1]):
            x, y = left + j + 0.5, top + i + 0.5
            u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
            v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
            if not (0.0 <= u < size and 0.0 <= v < size):
                continue
            u, v = min(max(u - 0.5, 0.0), size - 1.0), min(max(v - 0.5, 0.0), size - 1.0)
            column, row = int(u), int(v)
            right, below = min(column + 1, size - 1), min(row + 1, size - 1)
            first = best[row, column]
            if first == best[row, right] and first == best[below, column] and first == best[below, right]:
                classes[i, j] = first
                continue
            a, b = np.float32(u - column), np.float32(v - row)
            largest = np.float32(-np.inf)
            for k in range(count):
                upper = logits[row, column, k] * (1 - a) + logits[row, right, k] * a
                lower = logits[below, column, k] * (1 - a) + logits[below, right, k] * a
                value = upper * (1 - b) + lower * b
                if value > largest:
                    largest, first = value, k
            classes[i, j] = first
