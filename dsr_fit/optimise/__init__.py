"""The objective of a fit, and what minimises it: least squares, BFGS on parameters, gradient descent on weights."""
