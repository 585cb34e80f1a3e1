"""What MediaPipe Pose itself says of twelve pictures of ours: `tests/data/detector/`.

    python tools/mediapipe_reference.py pictures
    python tools/mediapipe_reference.py reference --heavy POSE/package/pose_landmark_heavy.tflite

`pictures` draws the people; `reference` needs MediaPipe, which has no place beside numpy 2, so an environment of its
own:

    python3.11 -m venv mediapipe && mediapipe/bin/pip install mediapipe==0.10.21 "numpy<2" pillow
    npm pack @mediapipe/pose@0.5.1675469404        unpacked; the model that the wheel fetches from the net is in it

`reference.npz` has one row a picture, two sizes (heavy, full) in the second place:

| array | shape | what |
| --- | --- | --- |
| `names` | (12,) | files |
| `regions` | (12, 4) | what MediaPipe looked at: centre x, y, side in pixels; clockwise turn of the square, radians |
| `following` | (12, 2, 4) | the same, where MediaPipe would look next |
| `landmarks` | (12, 2, 33, 3) | x, y in pixels; visibility |
| `world` | (12, 2, 33, 3) | metres |
| `masks` | (12, 2, 64, 64) | the mask of the whole picture, shrunk; 0..255 |
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "detector"
SIZES = {"heavy": 2, "full": 1}  # MediaPipe's `model_complexity`
MASK = 64
LONGER_SIDE = 450


@dataclass(frozen=True)
class Recipe:
    """A picture made of a rendered person."""

    seed: int
    turned: float = 0.0
    """Degrees, counterclockwise."""
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Left, top, right, bottom of what is kept, as shares."""


RECIPES = {
    "kick": Recipe(8110),
    "dance": Recipe(8137),
    "side": Recipe(8107),
    "back": Recipe(8112),
    "jump": Recipe(8126),
    "sitting": Recipe(8122),
    "two": Recipe(8115),
    "right_edge": Recipe(8124),
    "half_cut": Recipe(8118, part=(0.0, 0.0, 0.45, 1.0)),
    "no_legs": Recipe(8103),
    "tilted": Recipe(8134, turned=35),
    "lying": Recipe(8109, turned=90),
}


def draw(recipe: Recipe) -> Image.Image:
    """The picture; where it was turned, its own mirror image fills the corners."""
    import cv2

    from dsr_fit.synthetic import generate

    picture = generate(recipe.seed).image
    height, width = picture.shape[:2]
    if recipe.turned == 90:
        picture = np.rot90(picture)
    elif recipe.turned:
        matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), recipe.turned, 1.0)
        picture = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    height, width = picture.shape[:2]
    left, top, right, bottom = recipe.part
    whole = Image.fromarray(np.ascontiguousarray(picture))
    part = whole.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
    part.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.BOX)
    return part


def draw_all(folder: Path) -> None:
    """One JPEG a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, recipe in RECIPES.items():
        draw(recipe).save(folder / f"{name}.jpg", quality=90)


def look(picture: np.ndarray, complexity: int) -> dict[str, np.ndarray]:
    """What MediaPipe says of an (H, W, 3) uint8 RGB image; a graph of its own, since its filters remember pictures.

    Raises ValueError where it finds nobody.
    """
    from mediapipe.python.solution_base import SolutionBase

    graph = SolutionBase(
        binary_graph_path="mediapipe/modules/pose_landmark/pose_landmark_cpu.binarypb",
        side_inputs={
            "model_complexity": complexity,
            "smooth_landmarks": False,
            "enable_segmentation": True,
            "smooth_segmentation": False,
            "use_prev_landmarks": False,
        },
        outputs=[
            "pose_landmarks",
            "pose_world_landmarks",
            "segmentation_mask",
            "pose_rect_from_detection",
            "pose_rect_from_landmarks",
        ],
    )
    with graph:
        seen: Any = graph.process({"image": picture})
    if not seen.pose_landmarks:
        raise ValueError("MediaPipe finds nobody")
    height, width = picture.shape[:2]
    points = np.array([(p.x * width, p.y * height, p.visibility) for p in seen.pose_landmarks.landmark])
    mask = Image.fromarray(seen.segmentation_mask).resize((MASK, MASK), Image.Resampling.BOX)
    return {
        "regions": _square(seen.pose_rect_from_detection, width, height),
        "following": _square(seen.pose_rect_from_landmarks, width, height),
        "landmarks": points.astype(np.float32),
        "world": np.array([(p.x, p.y, p.z) for p in seen.pose_world_landmarks.landmark], np.float32),
        "masks": np.rint(255 * np.asarray(mask)).astype(np.uint8),
    }


def _square(rectangle: Any, width: int, height: int) -> np.ndarray:
    """(4,) centre, side, turn of a NormalizedRect."""
    assert abs(rectangle.width * width - rectangle.height * height) < 1e-2
    sides = rectangle.x_center * width, rectangle.y_center * height, rectangle.width * width
    return np.array([*sides, rectangle.rotation])


def refer(folder: Path, heavy: Path | None) -> None:
    """`reference.npz` beside the pictures."""
    import mediapipe

    models = Path(str(mediapipe.__file__)).parent / "modules" / "pose_landmark"
    if heavy is not None and not (models / "pose_landmark_heavy.tflite").exists():
        shutil.copy(heavy, models / "pose_landmark_heavy.tflite")
    rows: dict[str, list[np.ndarray]] = {}
    for name in RECIPES:
        picture = np.asarray(Image.open(folder / f"{name}.jpg").convert("RGB"))
        sizes = [look(picture, complexity) for complexity in SIZES.values()]
        (region,) = {tuple(size.pop("regions")) for size in sizes}  # the detector is the same
        rows.setdefault("regions", []).append(np.array(region))
        for key in sizes[0]:
            rows.setdefault(key, []).append(np.stack([size[key] for size in sizes]))
    np.savez_compressed(
        folder / "reference.npz",
        names=np.array([f"{name}.jpg" for name in RECIPES]),
        **{key: np.stack(row) for key, row in rows.items()},  # type: ignore[arg-type]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pictures", "reference"])
    parser.add_argument("--folder", type=Path, default=DATA)
    parser.add_argument("--heavy", type=Path, help="pose_landmark_heavy.tflite")
    given = parser.parse_args()
    if given.what == "pictures":
        draw_all(given.folder)
    else:
        refer(given.folder, given.heavy)


if __name__ == "__main__":
    main()
