"""The parser by rule: person mask, keypoint geometry and skin colour instead of a network."""
