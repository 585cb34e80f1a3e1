"""Parts of `tools/train_regressor.py`."""
