"""The human parsers by name."""

from __future__ import annotations

from pathlib import Path

from dsr_fit.errors import UsageError
from dsr_fit.observe.parser import SEGFORMER_DOWNLOAD, HumanParser, ParsingProtocol


def load_parser(which: str = "open", protocol: ParsingProtocol = "fast") -> HumanParser:
    """The parser of that name: `open` (ships), `rules`, a `.safetensors` file of ours, or a SegFormer folder.

    Raises:
        UsageError: no such parser, or one that knows a single protocol is asked for another.
        InputError: its files can't be used.
    """
    if which == "open" or which.endswith(".safetensors"):
        from dsr_fit.observe.network_parser import NetworkParser

        return NetworkParser(None if which == "open" else Path(which), protocol)
    if protocol != "fast":
        raise UsageError(f"--parsing-protocol {protocol} is for the parsers of ours; {which!r} looks once, use `fast`")
    if which == "rules":
        from dsr_fit.observe.rules.rule_parser import RuleParser

        return RuleParser()
    if Path(which).is_dir():
        from dsr_fit.observe.segformer import SegformerParser

        return SegformerParser(Path(which))
    raise UsageError(
        f"--parser {which}: expected `open`, `rules`, a .safetensors file of ours, or the folder of a SegFormer for "
        f"clothes (`{SEGFORMER_DOWNLOAD}` gets one)"
    )
