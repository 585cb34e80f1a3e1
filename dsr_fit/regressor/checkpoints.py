"""HMR's checkpoints as SPIN, EFT and DSR released them: recognised by their content, read and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsr_fit.assets import licensed
from dsr_fit.errors import InputError
from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.io.torch_file import load_torch
from dsr_fit.regressor.hmr import CAMERA, POSE, SHAPE, CropEstimate, Hmr, mean_estimate

WRAPPERS = ("model.", "module.")
"""Prefixes of names, by Lightning and DataParallel."""

HEAD = ("fc1", "fc2", "decpose", "decshape", "deccam", "init_pose", "init_shape", "init_cam")
"""Modules of the head in checkpoints whose names lack `head.` and `backbone.`."""

STARTS = {"head.init_pose": "pose", "head.init_shape": "shape", "head.init_cam": "cam"}
"""Buffers of the network, and the arrays of `smpl_mean_params.npz` that replace missing ones."""

COUNTER = "num_batches_tracked"
LISTED, LONGEST = 4, 100
"""Names in an error message, and letters of each."""


def load_hmr_checkpoint(path: Path, mean_params: str | Path | None = None) -> Hmr:
    """The network with the checkpoint's weights, in single precision, for evaluation.

    `mean_params`: smpl_mean_params.npz, a licensed file (`dsr_fit.assets`), for checkpoints without `init_*`; without
    it `mean_estimate` is used, with a warning. Raises InputError for a file that is missing, unreadable or holds
    anything but HMR's weights.
    """
    with torch.device("meta"):
        network = Hmr(CropEstimate(torch.empty(1, POSE), torch.empty(1, SHAPE), torch.empty(1, CAMERA)))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items() if COUNTER not in name}
    stored = _network_tensors(path, load_torch(path))
    _check(path, stored, shapes)
    tensors = {name: value.detach().to(torch.float32, copy=True) for name, (_, value) in stored.items()}
    # A sum is finite only where all is, and takes no mask of 27 million.
    broken = [stored[name][0] for name, value in tensors.items() if not bool(value.sum().isfinite())]
    if broken:
        raise InputError(f"{path}: weights that are not finite: {_short(broken)}")
    missing = [name for name in STARTS if name not in tensors]
    if missing:
        starts = _starts(path, mean_params)
        tensors |= {name: starts[name] for name in missing}
    counters = {name: torch.zeros((), dtype=torch.int64) for name in network.state_dict() if COUNTER in name}
    network.load_state_dict(tensors | counters, assign=True)
    return network.eval().requires_grad_(False)


def save_hmr_checkpoint(path: Path, network: Hmr) -> None:
    """Write the weights by SPIN's names, which SPIN, EFT, DSR and `load_hmr_checkpoint` read: `conv1.weight` ...
    `init_cam` under `model`. Raises InputError when the file can't be written."""
    weights = {
        name.removeprefix("backbone.").removeprefix("head."): value.detach().cpu().clone()
        for name, value in network.state_dict().items()
    }
    with replacing(path) as temporary:
        torch.save({"model": weights}, temporary)


def _network_tensors(path: Path, content: Any) -> dict[str, tuple[str, Tensor]]:
    """Our name -> the file's and the tensor."""
    entries: Any = content
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            entries = content[key]
            break
    if not isinstance(entries, Mapping) or not any(isinstance(value, Tensor) for value in entries.values()):
        kept = f"; its entries: {_short(map(str, content))}" if isinstance(content, Mapping) else ""
        raise InputError(f"{path}: holds no weights by name, as SPIN, EFT and DSR save them{kept}")
    named = {str(key): (str(key), value) for key, value in entries.items() if isinstance(value, Tensor)}
    return {
        name if name.startswith(("backbone.", "head.")) else f"{_part(name)}.{name}": value
        for name, value in _unwrapped(named).items()
        if not _is_ignored(name)
    }


def _unwrapped(named: dict[str, Any]) -> dict[str, Any]:
    """Names without the wrappers' prefixes, and without what lies beside the wrapped network (a loss, a body model)."""
    while True:
        wrapper = next((w for w in WRAPPERS if any(name.startswith(w) for name in named)), None)
        if wrapper is None:
            return named
        named = {name.removeprefix(wrapper): value for name, value in named.items() if name.startswith(wrapper)}


def _part(name: str) -> str:
    return "head" if name.split(".")[0] in HEAD else "backbone"


def _is_ignored(name: str) -> bool:
    """SMPL's arrays, batch norm's counters, and the backbone's ImageNet classifier."""
    return name.startswith("smpl.") or COUNTER in name or name.removeprefix("backbone.").startswith("fc.")


def _check(path: Path, stored: dict[str, tuple[str, Tensor]], shapes: dict[str, tuple[int, ...]]) -> None:
    complaints = []
    missing = [name for name in shapes if name not in stored and name not in STARTS]
    if missing:
        complaints.append(f"lacks {_short(missing)}")
    unexpected = [name for ours, (name, _) in stored.items() if ours not in shapes]
    if unexpected:
        complaints.append(f"holds {_short(unexpected)}, which HMR has not")
    wrong = [
        f"{name} {tuple(value.shape)} instead of {shapes[ours]}"
        for ours, (name, value) in stored.items()
        if ours in shapes and tuple(value.shape) != shapes[ours]
    ]
    if wrong:
        complaints.append(f"has shapes {_short(wrong)}")
    if complaints:
        raise InputError(f"{path}: not HMR on a ResNet-50, as SPIN, EFT and DSR save it: {'; '.join(complaints)}")


def _short(names: Iterable[str]) -> str:
    """A list for one line of text; names come from an unknown file."""
    names = [" ".join(name.split())[:LONGEST] for name in names]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _starts(path: Path, mean_params: str | Path | None) -> dict[str, Tensor]:
    """Name of the buffer -> (1, N)."""
    file = licensed("smpl_mean_params", None if mean_params is None else str(mean_params))
    if file is None:
        logging.getLogger("dsr_fit").warning(
            "%s: holds no mean body to start from, and its estimates suffer from ours; give it with --smpl-mean-params",
            path,
        )
        return dict(zip(STARTS, mean_estimate(), strict=True))
    try:
        arrays = read_arrays(file)
    except ValueError as error:
        raise InputError(f"{file}: not a readable smpl_mean_params.npz ({error})") from None
    sizes = {"pose": POSE, "shape": SHAPE, "cam": CAMERA}
    for key, size in sizes.items():
        array = arrays.get(key) if isinstance(arrays, dict) else None
        if array is None or array.dtype.kind not in "fiu" or array.size != size:
            raise InputError(f"{file}: not smpl_mean_params.npz, it lacks `{key}` of {size} numbers")
    return {name: torch.from_numpy(arrays[key].reshape(1, -1)).float() for name, key in STARTS.items()}  # type: ignore[index]
