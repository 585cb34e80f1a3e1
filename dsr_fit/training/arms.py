"""What is compared: rounds of pseudo-labels as they are meant, and control arms that differ from them in one thing.

All arms start from the same regressor and take as many steps, with the same seeds, on the same photos and synthetic
people.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from dsr_fit.config import FitConfig
from dsr_fit.errors import UsageError
from dsr_fit.training.settings import TrainSettings

DSR_TERMS = ("dsr_mc", "dsr_c", "silhouette")
"""Terms of a fit that look at the label map."""


@dataclass(frozen=True)
class Arm:
    """One way from a regressor to the next."""

    what: str
    """For a reader of the table."""
    fit_without: tuple[str, ...] = ()
    """Weights of the fit that are 0."""
    learns_from_fits: bool = True
    """Else from the observed keypoints alone: every other weight of the training on photos is 0."""
    gated: bool = True
    """Learns from accepted fits only, the better ones counting more; else from all alike."""

    def fit(self, config: FitConfig) -> FitConfig:
        """The configuration of its fits."""
        return replace(config, weights=replace(config.weights, **dict.fromkeys(self.fit_without, 0.0)))

    def train(self, settings: TrainSettings) -> TrainSettings:
        """The settings of its training."""
        if not self.gated:
            settings = replace(settings, gate="all", by_quality=False)
        if self.learns_from_fits:
            return settings
        others = [field.name for field in fields(settings.weights) if field.name != "keypoints"]
        return replace(settings, weights=replace(settings.weights, **dict.fromkeys(others, 0.0)))

    def borrows_fits(self, number: int) -> bool:
        """Whether it takes the fits of the first round as they are: there all arms have the same regressor, and later
        one that learns from keypoints needs nothing but these."""
        return not self.fit_without and (number == 1 or not self.learns_from_fits)


ROUNDS = Arm("pseudo-labels of DSR fits, the best accepted")

ARMS: dict[str, Arm] = {
    "keypoints": Arm("the photos' keypoints, no pseudo-labels", learns_from_fits=False, gated=False),
    "keypoint-fits": Arm("pseudo-labels of fits to keypoints alone, the best accepted", fit_without=DSR_TERMS),
    "ungated": Arm("pseudo-labels of all DSR fits alike", gated=False),
}


def arms_of(text: str) -> tuple[str, ...]:
    """Names separated by commas, `all` or `none`. Raises UsageError for others."""
    if text in ("all", "none"):
        return tuple(ARMS) if text == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise UsageError(f"--arms: no arm is called {unknown[0]!r}; there are {', '.join(ARMS)}, or all, or none")
    return names
