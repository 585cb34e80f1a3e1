"""From a photo to a person's keypoints, mask and label map: by detector and parser, or read from files."""

from __future__ import annotations

from dsr_fit.errors import InputError

try:
    import cv2  # noqa: F401  every module of this room works with it; its failure is explained here once
except ImportError as error:
    raise InputError(
        f"OpenCV can't be loaded ({error}); if a system library is missing, "
        "`apt-get install libgl1 libglib2.0-0` (or your system's equivalent) brings it, "
        "else `pip install opencv-contrib-python`"
    ) from None
