"""Draw contact sheets of clothed cases: each picture beside its label map, with the body's outline on both.

    python tools/clothed_sheet.py --first 0 --count 60 --out clothed

Writes `clothed_0.png` and so on, twelve cases a sheet, and prints what the cases hold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from dsr_fit.labels import COLOURS
from dsr_fit.synthetic.people import ClothedCase, generate

TILE = (240, 340)
PER_SHEET, PER_ROW = 15, 5


def label_picture(labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 in Graphonomy's colours, occluders grey."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(COLOURS)] = COLOURS
    table[254] = 120
    return table[labels]


def tile(case: ClothedCase) -> np.ndarray:
    outline, _ = cv2.findContours(case.body_mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    labels = label_picture(case.labels)
    cv2.drawContours(labels, outline, -1, (255, 255, 255), 2)
    pair = []
    for picture in (case.image, labels):
        scale = min(TILE[0] / picture.shape[1], TILE[1] / picture.shape[0])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        full = np.full((TILE[1], TILE[0], 3), 255, np.uint8)
        full[: small.shape[0], : small.shape[1]] = small
        pair.append(full)
    text = f"{case.seed} {1000 * case.looseness:.0f}mm {case.view}"
    out = np.hstack(pair)
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(out, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thick, cv2.LINE_AA)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("clothed"))
    arguments = parser.parse_args()
    tiles = []
    for seed in range(arguments.first, arguments.first + arguments.count):
        case = generate(seed)
        print(
            seed,
            case.view,
            case.clip,
            case.occluded,
            case.second_person,
            case.cropped,
            " ".join(case.garments),
        )
        tiles.append(tile(case))
    blank = np.full_like(tiles[0], 255)
    for number, start in enumerate(range(0, len(tiles), PER_SHEET)):
        chosen = tiles[start : start + PER_SHEET]
        chosen += [blank] * (-len(chosen) % PER_ROW)
        rows = [np.hstack(chosen[k : k + PER_ROW]) for k in range(0, len(chosen), PER_ROW)]
        path = arguments.out.with_name(f"{arguments.out.name}_{number}.png")
        cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


if __name__ == "__main__":
    main()
