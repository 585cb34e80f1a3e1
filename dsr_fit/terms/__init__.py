"""Energy terms: short pure functions, one value per image, unweighted. `docs/terms.md` has their formulas.

Shapes: B images, S x S pixels of the crop, K classes.
"""
