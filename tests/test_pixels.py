"""The rendered terms in one pass are the terms one by one."""

from __future__ import annotations

import pytest
import torch

from dsr_fit.terms.pixels import Observed, pixel_terms, pixel_terms_reference

SIZE, CLASSES = 24, 5


def _scene(seed: int) -> tuple[torch.Tensor, torch.Tensor, Observed]:
    """Two images, premultiplied: empty pixels, covered ones, and a few of the outline that overshoot below zero."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    alpha = (2 * draw(2, SIZE, SIZE) - 0.7).clamp(-0.02, 1) * (draw(2, SIZE, SIZE) > 0.3)
    attributes = alpha[..., None] * torch.cat(
        [torch.softmax(4 * draw(2, SIZE, SIZE, CLASSES), -1), draw(2, SIZE, SIZE, 1)], -1
    )
    known = (draw(2, SIZE, SIZE) > 0.1).double()
    masks = [(draw(2, SIZE, SIZE) > 0.5).double() for _ in range(2)]
    masks[1][1] = 0  # nothing of the skin is seen
    classes = torch.randint(0, CLASSES, (2, SIZE, SIZE), generator=generator)
    return alpha, attributes, Observed(classes, known, known * draw(2, SIZE, SIZE), *masks)


@pytest.mark.parametrize("excess", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_one_pass_has_the_values_and_gradients_of_the_terms_one_by_one(excess: bool, live: bool) -> None:
    alpha, attributes, observed = _scene(0)
    expected = _values_and_gradients(pixel_terms_reference, alpha, attributes, observed, excess, live)
    single = Observed(observed.classes, *(each.float() for each in observed[1:]))
    found = _values_and_gradients(pixel_terms, alpha.float(), attributes.float(), single, excess, live)
    for ours, theirs in zip(found, expected, strict=True):  # float32 against double precision
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=1e-5 * float(theirs.abs().max()))


def _values_and_gradients(function, alpha, attributes, observed, excess, live) -> list[torch.Tensor]:
    inputs = [alpha.clone().requires_grad_(), attributes.clone().requires_grad_()]
    terms = function(*inputs, observed, excess=excess, live=live)
    total = torch.stack([weight * term.sum() for weight, term in zip((1.0, 0.7, 0.4), terms, strict=True)]).sum()
    gradients = torch.autograd.grad(total, inputs)
    inside = alpha != 0  # attributes of empty pixels have no gradient in one pass
    return [*(term.detach() for term in terms), gradients[0], gradients[1] * inside[..., None]]


def test_no_term_depends_on_the_other_images() -> None:
    alpha, attributes, observed = _scene(1)
    single = Observed(observed.classes, *(each.float() for each in observed[1:]))
    together = pixel_terms(alpha.float(), attributes.float(), single, excess=True, live=True)
    alone = pixel_terms(
        alpha[1:].float(), attributes[1:].float(), Observed(*(m[1:] for m in single)), excess=True, live=True
    )
    for one, all_of_them in zip(alone, together, strict=True):
        assert torch.equal(one, all_of_them[1:])
