"""Every side that bisquit is measured against computes and paints with the very same model."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
import torch

from bisquit.priors import RasterConfig, RasterPrior
from bisquit.transformer import TransformerConfig


@pytest.fixture(params=["full_passes", "huggingface", "onnxruntime"])
def side(request: pytest.FixtureRequest) -> ModuleType:
    for package in {"huggingface": ["transformers"], "onnxruntime": ["onnx", "onnxruntime"]}.get(request.param, []):
        pytest.importorskip(package)
    return import_module(f"sides.{request.param}")


@pytest.fixture(scope="module", params=["none", "learned", "row-column"])
def prior(request: pytest.FixtureRequest) -> RasterPrior:
    shape = TransformerConfig(width=16, n_layers=2, n_heads=2, feed_forward=24)  # ONNX Runtime's heads have 8 channels
    prior = RasterPrior(RasterConfig(shape, positions=request.param), bits=5, grid=(4, 5))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():  # as they start, some are zero, which hides mistakes
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return prior.eval()


def test_logits_are_the_priors(side: ModuleType, prior: RasterPrior) -> None:
    tokens = torch.randint(32, (3, 4, 5), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        true = prior.logits(tokens)
    assert true.std() > 0.5  # so that equality means something
    torch.testing.assert_close(side.logits(prior, tokens), true, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prior", ["learned"], indirect=True)
def test_first_tokens_are_painted_as_often_as_they_are_likely(side: ModuleType, prior: RasterPrior) -> None:
    batch = 1000
    torch.manual_seed(0)
    paint = side.painter(prior, batch, steps=1) if side.__name__ == "sides.full_passes" else side.painter(prior, batch)
    painted = torch.as_tensor(paint()).reshape(batch, -1)[:, 0]
    with torch.inference_mode():
        chances = prior.logits(torch.zeros(1, 4, 5, dtype=torch.int64))[0, 0].softmax(dim=0)
    deviations = (batch * chances * (1 - chances)).sqrt()
    assert ((painted.bincount(minlength=32) - batch * chances).abs() < 5 * deviations + 1).all()
