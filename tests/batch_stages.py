"""Workers of a run that need no body: rows that follow from the image's name, and a record of what was worked on."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from dsr_fit.dataset.records import FittedBatch, PersonObservation
from dsr_fit.dataset.run import Resources, run
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Source

BATCH, SHARD = 4, 4


def source(images: int) -> Source:
    return Source(Path("/nowhere"), [Entry(f"{number:05d}.jpg") for number in range(images)], "list")


class Look:
    """Takes a few milliseconds; every seventh image shows nobody, and images `deadly` end the process."""

    def __init__(self, seconds: float = 0.0, *deadly: str) -> None:
        self.seconds, self.deadly = seconds, deadly

    def __call__(self, entry: Entry) -> list[PersonObservation]:
        time.sleep(self.seconds)
        if entry.imgname in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        number = int(entry.imgname[:5])
        reason = "nobody was found" if number % 7 == 0 else ""
        return [PersonObservation(entry.imgname, person, reason=reason) for person in range(1 + number % 3)]


class Fit:
    """Betas by the hash of the name; each batch that is begun is one line of `record`."""

    def __init__(self, seconds: float = 0.0, record: Path | None = None) -> None:
        self.seconds, self.record = seconds, record

    def __call__(self, batch: list[PersonObservation]) -> FittedBatch:
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(f"{int(batch[0].imgname[:5]) // BATCH}\n")
        time.sleep(self.seconds)
        rows = []
        for seen in batch:
            digest = hashlib.sha256(f"{seen.imgname} {seen.person}".encode()).digest()
            betas = np.frombuffer(digest[:10], np.uint8).astype(np.float32)
            fitted = {"betas": betas, "status": "accepted", "quality": 1.0}
            failed = {"status": "failed", "reason": seen.reason}
            rows.append({"imgname": seen.imgname, "person": seen.person, **(failed if seen.reason else fitted)})
        return FittedBatch(rows, {"fit": self.seconds})


class Loud(Look):
    """Warns of what it is made from, as loading a body does, and of what it works on."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("dsr_fit").warning("made from a file that lacks something")

    def __call__(self, entry: Entry) -> list[PersonObservation]:
        logging.getLogger("dsr_fit").warning("%s is odd", entry.imgname)
        return super().__call__(entry)


def main(out: str, images: str, record: str, seconds: str) -> None:
    """A whole run, for a test to kill."""
    stages = partial(Look, float(seconds) / 4), partial(Fit, float(seconds), Path(record))
    rows = run(
        source(int(images)), Path(out), Settings(batch_size=BATCH), Resources(observers=1, fitters=2),
        shard_size=SHARD, observe=stages[0], fit=stages[1],
    )  # fmt: skip
    for _ in rows:
        pass


if __name__ == "__main__":
    import batch_stages  # what the workers know these classes by

    batch_stages.main(*sys.argv[1:])
