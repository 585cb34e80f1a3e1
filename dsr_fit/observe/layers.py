"""The convolutions that the person finder and the landmark network are built of, batch norms folded into them.

Both come from TensorFlow, whose padding "SAME" adds the odd pixel of an even input at the end; `same` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dsr_fit.errors import InputError, one_line

Network = TypeVar("Network", bound=nn.Module)

COUNTER = "num_batches_tracked"
"""Of a batch norm, of no use once it is trained; files of weights leave it out."""


class Convolution(nn.Module):
    """A convolution with bias and, if wanted, an activation; `depthwise` has one filter a channel."""

    def __init__(
        self,
        channels: int,
        out: int,
        size: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        activation: type[nn.Module] | None = nn.ReLU6,
        same: bool = False,
        bias: bool = True,
    ) -> None:
        """`same` pads an even input as TensorFlow does where the stride is 2; else it is padded evenly."""
        super().__init__()
        self.uneven = same and stride == 2
        padding = 0 if self.uneven or size % 2 == 0 else size // 2
        groups = channels if depthwise else 1
        self.conv = nn.Conv2d(channels, out, size, stride, padding, groups=groups, bias=bias)
        self.activation = nn.Identity() if activation is None else activation(inplace=True)
        self.packed: Tensor | None = None
        """The weights in oneDNN's own layout, see `packed`."""

    def forward(self, x: Tensor) -> Tensor:
        if self.uneven:
            x = F.pad(x, (0, 1, 0, 1))
        conv = self.conv
        if self.packed is None or x.dtype != torch.float32 or x.device.type != "cpu":
            return self.activation(conv(x))
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups,
            *_ONEDNN_NAMES[type(self.activation)], "",
        )  # fmt: skip


_ONEDNN_NAMES: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""Activations that oneDNN applies to a convolution's sums as it writes them, with their constants."""


@torch.no_grad()
def packed(network: Network) -> Network:
    """The network with each `Convolution`'s weights laid out for oneDNN once, not at each call, and with its activation
    in the same pass: on a CPU a quarter less time, and the same sums but for their order. Where torch has no oneDNN
    nothing changes."""
    if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
        for module in network.modules():
            if isinstance(module, Convolution) and type(module.activation) in _ONEDNN_NAMES:
                conv = module.conv
                module.packed = torch.ops.mkldnn._reorder_convolution_weight(
                    conv.weight, conv.padding, conv.stride, conv.dilation, conv.groups
                )
    return network


def pointwise(channels: int, out: int, activation: type[nn.Module] | None = nn.ReLU6) -> Convolution:
    """1 x 1."""
    return Convolution(channels, out, activation=activation)


def depthwise(channels: int, size: int = 3, stride: int = 1, *, same: bool = False) -> Convolution:
    """A filter a channel, ReLU6."""
    return Convolution(channels, channels, size, stride, depthwise=True, same=same)


class InvertedResidual(nn.Module):
    """Widen, filter, narrow (MobileNetV2, Sandler et al. 2018, section 3.3); a shortcut where nothing changes size."""

    def __init__(
        self, channels: int, wide: int, out: int, size: int = 3, stride: int = 1, *, same: bool = False
    ) -> None:
        super().__init__()
        self.widen = pointwise(channels, wide) if wide != channels else nn.Identity()
        self.filter = depthwise(wide, size, stride, same=same)
        self.narrow = pointwise(wide, out, None)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.narrow(self.filter(self.widen(x)))
        return x + narrow if self.shortcut else narrow


def doubled(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear, pixel centres at halves."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def with_weights(make: Callable[[], Network], path: Path) -> Network:
    """The network that `make` builds, with a safetensors file's weights, for inference on the CPU.

    Raises InputError where the file can't be read, or holds other weights.
    """
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not readable weights ({one_line(error)})") from None
    with torch.device("meta"):  # no first weights, which take longer to draw than the file's to read
        network = make()
    own = {name: value.shape for name, value in network.state_dict().items() if not name.endswith(COUNTER)}
    stored = {name: value.shape for name, value in weights.items()}
    wrong = sorted({name for name, _ in own.items() ^ stored.items()})
    if wrong:
        raise InputError(f"{path}: not the weights of {type(network).__name__} ({len(wrong)} arrays differ)")
    network.load_state_dict(weights, strict=False, assign=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
