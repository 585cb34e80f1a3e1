"""Training of regressors on pseudo-labels. Lightning and TensorBoard come with the `train` extra."""
