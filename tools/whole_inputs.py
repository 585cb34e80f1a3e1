"""Small inputs of every kind, whole: what `tools/damage.py` damages."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image

SIZE = (64, 48)
"""Width and height of the images."""


def _picture(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(SIZE, Image.Resampling.BILINEAR).convert(mode)


def images() -> list[tuple[str, bytes]]:
    """Suffix and content of small images in every format that Pillow writes here, with EXIF and without."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 35
    grey = np.asarray(_picture("L"))
    frames = [_picture("P"), _picture("P").rotate(90)]
    made: list[tuple[str, Image.Image, dict[str, Any]]] = [
        (".jpg", _picture(), {"exif": exif}),
        (".jpg", _picture("CMYK"), {}),
        (".jpg", _picture("L"), {"progressive": True}),
        (".png", _picture(), {"exif": exif}),
        (".png", _picture("P"), {"transparency": 3}),
        (".png", Image.fromarray(grey.astype(np.uint16) * 257), {}),
        (".png", _picture("1"), {}),
        (".webp", _picture(), {"exif": exif}),
        (".webp", _picture("RGBA"), {"lossless": True}),
        (".tif", _picture(), {"exif": exif}),
        (".tif", _picture(), {"compression": "tiff_lzw"}),
        (".tif", Image.fromarray(grey.astype(np.float32)), {}),
        (".tif", _picture("LAB"), {}),
        (".bmp", _picture(), {}),
        (".gif", frames[0], {"save_all": True, "append_images": frames[1:]}),
        (".avif", _picture(), {"exif": exif}),
        (".jp2", _picture(), {}),
        (".ppm", _picture(), {}),
    ]
    return [(suffix, saved(picture, suffix, options)) for suffix, picture, options in made]


def saved(picture: Image.Image, suffix: str, options: dict[str, Any]) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, format=Image.registered_extensions()[suffix], **options)
        return file.getvalue()


def people(size: tuple[int, int] = SIZE) -> list[Any]:
    """Keypoint files of every kind, as JSON content, of a person in an image of that size."""
    points = {count: _points(count, size) for count in (17, 18, 25, 33, 49)}
    flat = {count: table.ravel().tolist() for count, table in points.items()}
    landmarks = [{"x": x / size[0], "y": y / size[1], "z": 0.1, "visibility": c} for x, y, c in points[33].tolist()]
    world = [[0.01 * n, 0.02 * n, 0.0, 0.9] for n in range(33)]
    coco = {
        "images": [
            {"id": 1, "file_name": "photo.png", "width": size[0], "height": size[1]},
            {"id": 2, "file_name": "other.png", "width": 9, "height": 9},
        ],
        "annotations": [
            {"id": n, "image_id": n, "keypoints": flat[17], "num_keypoints": 17, "bbox": [1, 2, 30, 40], "iscrowd": 0}
            for n in (1, 2)
        ],
    }
    return [
        {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat[n]} for n in (25, 18)]},
        coco,
        [{"image_id": 1, "category_id": 1, "keypoints": flat[17], "score": 0.9}],
        {"pose_landmarks": landmarks, "pose_world_landmarks": world},
        {"landmarks": flat[33]},
        points[49].tolist(),
        flat[25],
    ]


def _points(count: int, size: tuple[int, int]) -> np.ndarray:
    turns = np.random.default_rng(count).uniform(0.1, 0.9, (count, 2)) * size
    return np.column_stack([turns, np.linspace(0.35, 0.95, count)])


def label_maps(size: tuple[int, int] = SIZE) -> list[tuple[str, bytes]]:
    labels = np.zeros(size[::-1], np.uint8)
    labels[size[1] // 8 :, size[0] // 8 :] = 5
    labels[: size[1] // 8] = 13
    coloured = np.zeros((*labels.shape, 3), np.uint8)
    coloured[labels == 13] = (0, 0, 255)
    palette = Image.fromarray(labels).convert("P")
    array = io.BytesIO()
    np.save(array, labels)
    return [
        (".png", saved(Image.fromarray(labels), ".png", {})),
        (".png", saved(Image.fromarray(coloured), ".png", {})),
        (".png", saved(palette, ".png", {})),
        (".png", saved(Image.fromarray(labels.astype(np.uint16)), ".png", {})),
        (".npy", array.getvalue()),
    ]


def archives() -> list[bytes]:
    """A `mesh.npz` with its keypoints, and a data set of SPIN."""
    arrays = [
        {"keypoints": _points(49, SIZE).astype(np.float32), "image_size": np.array(SIZE, np.float32)},
        {
            "imgname": np.array(["photo.png"] * 2), "center": np.full((2, 2), 30.0), "scale": np.ones(2),
            "part": np.ones((2, 24, 3)), "gender": np.array(["m", "f"]),
        },
    ]  # fmt: skip
    contents = []
    for content in arrays:
        file = io.BytesIO()
        np.savez(file, **content)  # type: ignore[arg-type]
        contents.append(file.getvalue())
    return contents
