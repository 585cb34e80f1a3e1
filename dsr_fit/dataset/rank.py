"""A run's rows in another folder, with the best of its fits accepted by rank of their quality."""

from __future__ import annotations

import shutil
from pathlib import Path

from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.shards import Store, open_store
from dsr_fit.errors import InputError


def accept_best(fits: Path, out: Path, share: float) -> float:
    """Copy a finished run's rows to `out`, the best `share` (0..1) of its fits accepted, the others refused.

    Fits that diverged stay refused, those without a quality stay unjudged. `out` is written as a whole or not at all;
    an earlier one is replaced. Returns the least quality that was accepted. Raises InputError where no fit has one, and
    for results of a version that had no plans.
    """
    store = open_store(fits)
    threshold = threshold_of(store, share)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    store.copy(temporary, lambda rows: _accepted(rows, threshold, share))
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return threshold


def threshold_of(store: Store, share: float) -> float:
    """The quality that `share` of the fits reach, without those that diverged. Raises InputError where none has one."""
    columns = ["status", "stop_reason", "quality"]
    rows = [row for table in store.tables(columns) for row in table.to_pylist()]
    fitted = [row["quality"] for row in rows if not _ruined(row)]
    known = sorted((quality for quality in fitted if quality is not None), reverse=True)
    if not known:
        raise InputError(f"{store.folder}: its {len(fitted)} fits have no quality; fit them with a gate that holds")
    return known[max(1, min(len(known), round(share * len(fitted)))) - 1]


def _accepted(rows: list[Row], threshold: float, share: float) -> list[Row]:
    for row in rows:
        if _ruined(row) or row["quality"] is None:
            continue
        if row["quality"] >= threshold:
            row["status"], row["reason"] = "accepted", None
        else:
            below = f"its quality is below {threshold:.2f}, that of the best {100 * share:g} %"
            row["status"], row["reason"] = "refused", row["reason"] or below
    return rows


def _ruined(row: Row) -> bool:
    """Whether there is no usable fit to rank."""
    return row["status"] == "failed" or row["stop_reason"] == "diverged"
