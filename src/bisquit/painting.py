"""Painting: a prior in the form that is computed fastest, with its family's loop and the ways that conditions lead.

    numbers of a seed, condition, given tokens ──Painter──> tokens        raster, parts, any order: token after token
                                                                          pyramid: scale after scale
                                                                          masked: in rounds        flow: in steps

Whoever paints needs to know nothing of the family; what it cannot do (a likelihood, in-painting, a setting that it does
not hear) is refused by one line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bisquit.engine import Backend, Precision, paint, prepare
from bisquit.errors import ConfigError, ModelError
from bisquit.priors import AnyOrderPrior, FlowPrior, MaskedPrior, Path, Prior, PyramidPrior, SequentialPrior
from bisquit.priors.base import to_grid
from bisquit.sampling import FLOW_STEPS, SamplingConfig, Seeds, sample_flow, sample_masked, sample_pyramid

OnTokens = Callable[[int, Tensor], None]
"""Called now and then with how many tokens of a picture are done, and with all (B, h, w): -1 where none is yet."""

HEARD_BY: dict[str, tuple[type[Prior], ...]] = {
    "steps": (MaskedPrior, FlowPrior),
    "confidence_noise": (MaskedPrior,),
    "solver": (FlowPrior,),
}
"""The settings that not every family hears."""


class Painter:
    """A prior that is ready to paint."""

    def __init__(self, prior: Prior, backend: Backend = "auto", precision: Precision = "float32") -> None:
        """Prepare a prior, as it is now: see `bisquit.engine.prepare`. Raises ConfigError for what cannot be."""
        self.prior, self._form = prior, prepare(prior, backend, precision)
        self.backend, self.precision = backend, precision

    @torch.no_grad()
    def paint(
        self,
        numbers: Sequence[int],
        *,
        seed: Seeds,
        settings: SamplingConfig | None = None,
        condition: Tensor | None = None,
        given: Tensor | None = None,
        start: Tensor | None = None,
        strength: float = 1.0,
        on_tokens: OnTokens | None = None,
    ) -> Tensor:
        """Paint pictures as one batch, by the loop of the prior's family.

        numbers: which pictures of the seed, or each of a seed of its own. condition: (condition_size,) for all, or
        (len(numbers), condition_size). given: (len(numbers), h, w) int64, tokens that are kept as they are, -1 where
        one is to be painted. start, strength: of a flow, tokens (len(numbers), h, w) to start from, and how far back
        from them towards noise. Returns their tokens, int64 (len(numbers), h, w), on the CPU. Raises ConfigError for
        what the family does not hear, and what its loop raises.
        """
        settings, form, count = settings or SamplingConfig(), self._form, len(numbers)
        self._check(settings)
        if start is not None and not isinstance(form, FlowPrior):
            raise ConfigError(f"a {type(self.prior).__name__} paints from nothing: only a flow starts from a picture")
        if isinstance(form, MaskedPrior | FlowPrior):
            told = None if condition is None else condition.expand(count, -1)
            if isinstance(form, MaskedPrior):
                return sample_masked(
                    form, numbers, seed=seed, settings=settings, given=given, condition=told, on_token=on_tokens
                )
            on_step = self._on_part(on_tokens, settings.steps or FLOW_STEPS)
            return sample_flow(
                form,
                numbers,
                seed=seed,
                settings=settings,
                given=given,
                condition=told,
                start=start,
                strength=strength,
                on_step=on_step,
            )
        assert isinstance(form, SequentialPrior)
        path, guide = self._ways(condition, given, count)
        if isinstance(form, PyramidPrior):
            on_scale = self._on_scale(form, on_tokens)
            return sample_pyramid(
                form, numbers, seed=seed, settings=settings, given=given, path=path, guide=guide, on_scale=on_scale
            )
        on_token = self._on_token(on_tokens, given, path)
        return paint(
            form, numbers, seed=seed, settings=settings, given=given, path=path, guide=guide, on_token=on_token
        )

    @torch.no_grad()
    def bits(self, tokens: Tensor, condition: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """Return what each token of pictures (B, h, w) costs, float32 (B, h, w), on the CPU.

        condition, given: as they were painted with. Raises ModelError if the prior has no exact likelihood.
        """
        if not isinstance(self._form, SequentialPrior):
            raise ModelError(f"a {type(self.prior).__name__} cannot say how likely a picture is")
        path, _ = self._ways(condition, given, len(tokens))
        return self._form.token_bits(tokens.to(self._form.device), path).cpu()

    def _check(self, settings: SamplingConfig) -> None:
        usual = SamplingConfig()
        for name, families in HEARD_BY.items():
            if getattr(settings, name) != getattr(usual, name) and not isinstance(self.prior, families):
                wanted = " or a ".join(family.__name__ for family in families)
                raise ConfigError(f"{name} is for a {wanted}, not for a {type(self.prior).__name__}: leave it out")

    def _ways(self, condition: Tensor | None, given: Tensor | None, count: int) -> tuple[Path | None, Path | None]:
        """Return the way of so many pictures that are to show what a condition says, and that of their guides.

        In any order, what is given comes first.
        """
        prior = self.prior
        assert isinstance(prior, SequentialPrior)
        rows = None if condition is None else condition.to(prior.device).view(-1, condition.shape[-1])
        if isinstance(prior, AnyOrderPrior) and given is not None:
            path = prior.after(given.to(prior.device) >= 0)
            if rows is None:
                return path, None
            nothing = torch.zeros_like(rows).expand(count, -1)
            return prior.shown(path, rows.expand(count, -1)), prior.shown(path, nothing)
        if rows is None:
            return None, None
        ways = [prior.conditioned(row, len(row)) for row in (rows, torch.zeros_like(rows[:1]))]
        own, guide = (way and (way.expand(count) if len(way.around) == 1 else way) for way in ways)
        return own, guide

    def _on_token(self, on_tokens: OnTokens | None, given: Tensor | None, path: Path | None) -> OnTokens | None:
        """Return what is called with how many steps are done, and passes on whole rows of the grid."""
        if on_tokens is None:
            return None
        grid, order = self.prior.grid, None if path is None or path.order is None else path.to("cpu")

        def on_token(done: int, tokens: Tensor) -> None:
            if done % grid[1] == 0:
                is_done = (torch.arange(self.prior.length) < done).expand(len(tokens), -1)
                is_there = to_grid(is_done, order, grid)
                on_tokens(done, tokens.where(is_there if given is None else is_there | (given >= 0), -1))

        return on_token

    def _on_scale(self, prior: PyramidPrior, on_tokens: OnTokens | None) -> OnTokens | None:
        """Return what is called with how many scales are done."""
        if on_tokens is None:
            return None

        def on_scale(done: int, tokens: Tensor) -> None:
            count = prior.spans[done - 1].stop
            is_there = (torch.arange(prior.length) < count).view(1, *prior.grid)
            on_tokens(count, tokens.where(is_there, -1))

        return on_scale

    def _on_part(self, on_tokens: OnTokens | None, parts: int) -> OnTokens | None:
        """Return what is called with how many of so many steps are done, each of all tokens."""
        if on_tokens is None:
            return None
        return lambda done, tokens: on_tokens(self.prior.length * done // parts, tokens)
