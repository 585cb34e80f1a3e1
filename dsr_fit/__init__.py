"""dsr-fit: fits SMPL-format bodies to images with clothing semantics (DSR), on any machine."""
