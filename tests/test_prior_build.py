"""`dsr-fit prior build`: from a folder of renders and scans to a prior that a fit takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scenes import HEIGHT, WIDTH, observe, open_body, person

from dsr_fit.cli.main import main as cli
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.io.label_files import write_labels
from dsr_fit.labels import LABEL_INDEX
from dsr_fit.priors.scans import read_views
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.render.renderer import Renderer

ROOT = Path(__file__).resolve().parents[1]
Capture = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("nothing_is_set")


def parameters(cam_t: bool = True) -> dict[str, np.ndarray]:
    """A person's parameters as an `.npz` holds them; at the origin, y up, without `cam_t`."""
    values = {name: tensor[0].numpy() for name, tensor in vars(person(1)).items()}
    if not cam_t:
        values |= {"global_orient": np.zeros(3, np.float32), "cam_t": np.array([0.2, 0.1, -0.3], np.float32)}
    return values


def worn() -> np.ndarray:
    """(V,) labels of a scan: shoes at the bottom, then trousers, a coat, a face, on whatever side."""
    height = open_body().v_template[:, 1].numpy()
    names = ("leftShoe", "pants", "coat", "face")
    return np.array([LABEL_INDEX[name] for name in names])[np.digitize(height, np.percentile(height, (10, 45, 80)))]


def write_scan(path: Path, suffix: str = ".ply") -> None:
    """The body itself as a scan, with its own vertices' labels."""
    values = parameters(cam_t=False)
    posed = open_body()(*(torch.from_numpy(values[name])[None] for name in values))
    faces = open_body().faces.numpy()
    trimesh.Trimesh(posed.vertices()[0].numpy(), faces, process=False).export(path.with_suffix(suffix))
    np.savez(path, **values, labels=worn())  # type: ignore[arg-type]


def test_renders_and_scans_become_a_prior_that_a_fit_takes(tmp_path: Path, capfd: Capture) -> None:
    data, truth = tmp_path / "data", person(1)
    (data / "scans").mkdir(parents=True)
    seen = observe(truth)
    np.savez(data / "render.npz", **parameters(), focal_length=np.float32(seen.focal_length))  # type: ignore[arg-type]
    write_labels(data / "render.png", seen.labels)
    write_scan(data / "scans" / "scan.npz")
    out = tmp_path / "[bold]prior :dog:.npz"
    assert cli(["prior", "build", "--data", str(data), "--out", str(out), "--views", "4"]) == 0
    assert f"{out}: 5 views of 2 files" in capfd.readouterr().out
    prior = load_semantic_prior(open_body(), out)
    assert prior.outfits is not None
    with np.load(out) as file:
        often = file["observations"] > 1.5
        assert file["sleeve_views"].sum() == 5
    rows = prior.probabilities.numpy()
    for name in ("pants", "coat"):
        wearing = often & (worn() == LABEL_INDEX[name])
        parts = rows[wearing, LABEL_INDEX[name]]
        assert np.median(parts) > 0.5
    result = Fitter(open_body(), semantic_prior=prior).fit([seen])[0]
    assert result.stop_reason != "diverged"


def test_a_fits_own_file_is_a_render(tmp_path: Path) -> None:
    seen = observe(person(1))
    np.savez(
        tmp_path / "mesh.npz", **parameters(), focal_length=seen.focal_length, labels=seen.labels,  # type: ignore[arg-type]
        principal_point=np.array(seen.principal_point), image_size=np.array(seen.image_size),
    )  # fmt: skip
    (tmp_path / "mesh.png").write_text("an overlay is no label map")
    (view,) = read_views(tmp_path / "mesh.npz", open_body(), 10, 64)
    np.testing.assert_array_equal(view.labels, seen.labels)
    assert view.labels.shape == (HEIGHT, WIDTH)
    rast = view.rasterise(Renderer(open_body().faces, open_body().num_vertices, device="cpu", outline="none"))
    np.testing.assert_array_equal(rast[..., 3] > 0, seen.labels > 0)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".stl"])
def test_pictures_around_a_scan_show_the_body_in_it(tmp_path: Path, suffix: str) -> None:
    """The scan is the body itself: the same pixels, and at each the label of the vertices around it."""
    write_scan(tmp_path / "scan.npz", suffix)
    if suffix == ".stl":  # its triangles own their corners
        with np.load(tmp_path / "scan.npz") as file:
            arrays = dict(file)
        arrays["labels"] = arrays["labels"][open_body().faces.numpy().ravel()]
        np.savez(tmp_path / "scan.npz", **arrays)
    views = list(read_views(tmp_path / "scan.npz", open_body(), 3, 128))
    assert len(views) == 3
    renderer = Renderer(open_body().faces, open_body().num_vertices, device="cpu", outline="none")
    areas = []
    for view in views:
        rast = view.rasterise(renderer)
        covered = rast[..., 3] > 0
        assert (covered != (view.labels > 0)).mean() < 1e-3  # rounding of the file's coordinates
        corners = worn()[open_body().faces.numpy()[rast[covered, 3].astype(int) - 1]]
        assert (corners == view.labels[covered][:, None]).any(1).mean() > 0.99
        areas.append(covered.sum())
        assert covered.any(1).sum() > 0.5 * 128
    assert len(set(areas)) == 3  # from other sides


REFUSALS = {
    "no command": ("prior scan", 2, "`dsr-fit prior` has no 'scan'; choose one of build"),
    "no folder": ("prior build --data gone --out a.npz", 1, "--data gone: no such file or folder"),
    "empty": ("prior build --data empty --out a.npz", 1, "empty: no .npz with a body's parameters in it"),
    "suffix": ("prior build --data empty --out a.npy", 2, "--out a.npy: the suffix must be .npz"),
    "out": ("prior build --data empty --out lacking/a.npz/b.npz", 1, "lacking/a.npz is a file, not a folder"),
    "inside": ("prior build --data counts --out counts/a.npz", 2, "lies in the folder of the data"),
    "views": ("prior build --data empty --out a.npz --views 0", 2, "--views 0: expected a positive number"),
    "lacking": ("prior build --data lacking --out a.npz", 1, "lacking/a.npz: lacks `betas`, 10 numbers"),
    "size": ("prior build --data size --out a.npz", 1, "size/a.npz: `betas` must be 10 finite numbers, not float64"),
    "alone": ("prior build --data alone --out a.npz", 1, "alone/a.npz: neither `focal_length` for a render nor a mesh"),
    "no map": ("prior build --data nomap --out a.npz", 1, "nomap/a.npz: no label map; put a.png beside it"),
    "counts": ("prior build --data counts --out a.npz", 1, "a whole number for each of counts/a.ply's 7000 vertices"),
    "mesh": ("prior build --data mesh --out a.npz", 1, "mesh/a.obj: not a readable mesh"),
    "apart": ("prior build --data apart --out a.npz", 1, "the scan and the body in it lie apart"),
    "nobody": ("prior build --data nobody --out a.npz", 1, "nothing to make a prior of"),
}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the refusals name."""
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "lacking", "size", "alone", "nomap", "counts", "mesh", "apart", "nobody"):
        Path(name).mkdir()
    full = parameters()
    np.savez("lacking/a.npz", **{key: value for key, value in full.items() if key != "betas"})  # type: ignore[arg-type]
    np.savez("size/a.npz", **(full | {"betas": np.zeros(9)}))  # type: ignore[arg-type]
    np.savez("alone/a.npz", **full)  # type: ignore[arg-type]
    np.savez("nomap/a.npz", **full, focal_length=400)  # type: ignore[arg-type]
    for name in ("counts", "apart"):
        write_scan(Path(name) / "a.npz")
    np.savez("counts/a.npz", **parameters(cam_t=False), labels=worn()[1:])  # type: ignore[arg-type]
    np.savez("apart/a.npz", **(parameters(cam_t=False) | {"cam_t": np.array([0, 50, 0])}), labels=worn())  # type: ignore[arg-type]
    np.savez("mesh/a.npz", **full)  # type: ignore[arg-type]
    Path("mesh/a.obj").write_bytes(b"f 1 2 3\nv 1\n")
    np.savez("nobody/a.npz", **full, focal_length=400, labels=np.zeros((HEIGHT, WIDTH), np.uint8))  # type: ignore[arg-type]


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(("words", "status", "line"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused_in_one_line(capfd: Capture, words: str, status: int, line: str) -> None:
    assert cli(words.split()) == status
    error = capfd.readouterr().err.strip().splitlines()
    assert line in error[-1]
    assert error[-1].startswith("dsr-fit: ")
    assert not Path("a.npz").exists()
