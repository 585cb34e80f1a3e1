"""Files: images, keypoints, labels, SPIN data sets; strangers' pickles and checkpoints; atomic writing."""
