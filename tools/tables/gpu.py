"""What `benchmarks/gpu.py` measured on a GPU, where one could be had."""

from __future__ import annotations

from typing import Any

from tables.results import ROOT, result


def gpu() -> str:
    """Agreement with the CPU, and speed."""
    if not (ROOT / "benchmarks" / "results" / "gpu.json").exists():
        return "No figures: it has not run on a GPU yet."
    return table(result("gpu"))


def table(measured: dict[str, Any]) -> str:
    """The rows of one report; steps that failed or were not reached say so."""
    steps, card = measured["steps"], measured["card"]
    rows = [f"| {card.get('name', 'no GPU: a dry run')}, {measured['machine']['cores']} cores | |", "| --- | --- |"]
    for name, step in steps.items():
        if "error" in step:
            rows.append(f"| {name} | {step['error']} |")
        rows += [f"| {title} | {value} |" for title, value in _ROWS[name](step)]
    return "\n".join(rows)


def _results(step: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of a step that are tables of their own."""
    return {name: value for name, value in step.items() if isinstance(value, dict)}


def _operators(step: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, ", ".join(f"{kind} {count}" for kind, count in counts.items() if kind != "failures"))
        for name, counts in _results(step).items()
    ]


def _outline(step: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            f"outline, {name}: coverage on average, gradient off the CPU's by",
            f"{row['coverage, mean difference']:.1g}, {row['gradient']:.1g}",
        )
        for name, row in _results(step).items()
    ]


def _fits(step: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            f"{step['people']} fits by {name}: vertices from the CPU's on average, mean energies",
            f"{row['vertices apart, mean mm']:.2f} mm, {row['energy, mean on the device']:.3f} and "
            f"{row['energy, mean on the cpu']:.3f}",
        )
        for name, row in _results(step).items()
        if "vertices apart, mean mm" in row
    ]


def _iteration(step: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"an iteration, {name}", f"{row['step_ms']:.1f} ms, {row['memory_mb']} MB")
        for name, row in _results(step).items()
    ]


def _stages(step: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"default fits in batches of {name}", f"{row['people_a_second']:.1f} a second")
        for name, row in _results(step).items()
        if "people_a_second" in row
    ]


def _perception(step: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, row in _results(step).items():
        if "parser, ms" in row:
            said = f"{row['landmark network, ms']:.1f} and {row['parser, ms']:.1f} ms"
            rows.append((f"landmark network and parser, batch of {name}", said))
        elif "pictures_a_second" in row:
            rows.append((f"pictures observed by {name}", f"{row['pictures_a_second']:.1f} a second"))
        else:
            said = ", ".join(f"{value:.2g}" if isinstance(value, float) else str(value) for value in row.values())
            rows.append((f"{name}: {', '.join(row)}", said))
    return rows


def _eft(step: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"EFT of a ResNet-50, 20 iterations, {name}", f"{row['whole_s']:.2f} s")
        for name, row in _results(step).items()
    ]


def _training(step: dict[str, Any]) -> list[tuple[str, str]]:
    return (
        [(f"training steps of {step['people a step']} people", f"{step['steps_a_second']:.1f} a second")]
        if "steps_a_second" in step
        else []
    )


def _pipeline(step: dict[str, Any]) -> list[tuple[str, str]]:
    if "images_per_s" not in step:
        return []
    return [
        ("whole pipeline, JPEG to shard, once started", f"{step['images_per_s_once_started']:.1f} pictures a second")
    ]


_ROWS = {
    "operators": _operators,
    "outline": _outline,
    "fits": _fits,
    "iteration": _iteration,
    "stages": _stages,
    "perception": _perception,
    "eft": _eft,
    "training": _training,
    "pipeline": _pipeline,
}
