"""Fit every photo of a folder, and see the results as they come; stop it at any time and run it again.

python examples/fit_dataset.py PHOTOS RESULTS
"""

from __future__ import annotations

import sys

from dsr_fit.dataset.run import fit_dataset, read_results

photos, results = sys.argv[1:]
for row in fit_dataset(photos, results):
    print(row["imgname"], row["status"], row["reason"] or f"quality {row['quality']}")

accepted = [row for row in read_results(results) if row["status"] == "accepted"]
heights = [row["betas"][0] for row in accepted]  # the open body's first beta is stature
print(f"{len(accepted)} accepted in all, first betas {min(heights, default=0):.1f} to {max(heights, default=0):.1f}")
