"""Parts of `tools/build_poses.py`: readers of motion capture, retargeting to SMPL's joints."""
