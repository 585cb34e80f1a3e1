"""SMPL-format bodies: their files, kinematics, skinning and parameters."""
