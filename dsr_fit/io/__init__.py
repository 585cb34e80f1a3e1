"""Files: images, keypoint and label files, SPIN files, pickles and checkpoints read without running them, atomic writing."""
