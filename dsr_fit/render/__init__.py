"""Differentiable rendering of one mesh: nvdiffrast's operators on the CPU, a dense outline, and a renderer of
them."""

from dsr_fit.render.renderer import Render, Renderer

__all__ = ["Render", "Renderer"]
