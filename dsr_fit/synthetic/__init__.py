"""Synthetic images of clothed people with ground truth: a generator by seed, and sets of cases on disk."""

from dsr_fit.synthetic.dataset import read_cases, write_cases
from dsr_fit.synthetic.people import ClothedCase, generate

__all__ = ["ClothedCase", "generate", "read_cases", "write_cases"]
