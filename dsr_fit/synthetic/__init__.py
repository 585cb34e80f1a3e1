"""Synthetic images of clothed people with ground truth: generators by seed, and sets of cases on disk."""

from dsr_fit.synthetic.composites import Composite, Couple, composite, couple
from dsr_fit.synthetic.dataset import read_cases, write_cases
from dsr_fit.synthetic.people import ClothedCase, generate

__all__ = ["ClothedCase", "Composite", "Couple", "composite", "couple", "generate", "read_cases", "write_cases"]
