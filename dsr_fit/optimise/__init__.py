"""The objective of a fit, and the two solvers that minimise it: least squares and gradient descent."""
