"""The semantic prior."""

from __future__ import annotations

from tables.results import result

SEMANTIC = {"rules": "by rule", "average": "learned, average wardrobe", "outfits": "learned, by outfit (default)"}


def semantic_labels() -> str:
    """How well each semantic prior foretells annotated labels."""
    rows = ["| photos | prior | nats | top-1 |", "| --- | --- | --- | --- |"]
    for split, found in result("semantic_prior")["labels"].items():
        title = {"tune": "tuning", "val": "validation"}[split]
        for name, prior in SEMANTIC.items():
            nats, top = found["priors"][name]["nats"], found["priors"][name]["top1"]
            rows.append(
                f"| {title}, {found['photos']} | {prior} "
                f"| {nats['mean']:.3f} ({nats['low']:.3f} to {nats['high']:.3f}) "
                f"| {top['mean']:.3f} ({top['low']:.3f} to {top['high']:.3f}) |"
            )
    return "\n".join(rows)


def semantic_fits() -> str:
    """Fits of the validation photos with each semantic prior."""
    rows = [
        "| prior | keypoint error, % of the box | `mc_iou` | `containment` | silhouette IoU |",
        "| --- | --- | --- | --- | --- |",
    ]
    found = result("semantic_prior")["fits"]["val"]
    for name, prior in SEMANTIC.items():
        middle = {key: value["median"] for key, value in found[name].items() if key != "photos"}
        rows.append(
            f"| {prior} | {100 * middle['keypoint_error_rel']:.2f} | {middle['mc_iou']:.3f} "
            f"| {middle['containment']:.3f} | {middle['silhouette_iou']:.3f} |"
        )
    return "\n".join([*rows, "", f"{found['outfits']['photos']} photos."])
