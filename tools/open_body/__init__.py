"""Parts of `tools/build_body.py`: the open body's source, mesh, shape space, regressors and pictures."""
