"""Initial estimates of pose, shape and camera."""
