"""From observations to fitted bodies: the fitter, its results and their files."""
