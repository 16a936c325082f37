"""The two stages as Lightning modules: what a step of training and of validation computes, and what is logged.

Every random number of step k comes from a seed made of (seed, k), so that a resumed run draws what the run would have
drawn.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.autoencoder import pad_to_patches, to_float
from bisquit.frames.augment import Augmentation, augment
from bisquit.priors import Prior
from bisquit.seeds import derive_seed
from bisquit.tokenizer import Tokenizer
from bisquit.training.settings import TrainingConfig


class StageModule(L.LightningModule):
    """What both stages share: the optimiser, its schedule, and the seed of each step."""

    def __init__(self, settings: TrainingConfig) -> None:
        super().__init__()
        self.settings = settings

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """What is trained, and saved in the end."""

    def configure_optimizers(self) -> Any:
        """AdamW with weight decay on matrices and kernels alone, its rate as the settings say."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, fused=True)
        total_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.settings.rate_factor(step, total_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Seed what this step draws: its augmentation and its dropout."""
        torch.manual_seed(derive_seed(self.settings.seed, "step", self.global_step))

    def keeps_figures(self, step: int) -> bool:
        """Whether what a step logs is written down; for one in ten it is, and the others need not work it out."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it from elsewhere
        return (step + 1) % every == 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, and log what its norm was before."""
        norm = nn.utils.clip_grad_norm_(self.parameters(), self.settings.gradient_clip or math.inf)
        if self.keeps_figures(self.global_step):
            self.log("train/gradient_norm", norm)


class TokenizerModule(StageModule):
    """Trains a tokenizer on frames, uint8 (B, H, W, 3): mean squared error plus the quantizer's own terms.

    The valid loss is the mean squared error alone, of frames clipped to their range as they are shown.
    """

    def __init__(self, tokenizer: Tokenizer, augmentation: Augmentation, settings: TrainingConfig) -> None:
        super().__init__(settings)
        self.tokenizer = tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.augmentation = augmentation

    @property
    def model(self) -> Tokenizer:
        """The tokenizer."""
        return self.tokenizer

    def training_step(self, frames: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        generator = torch.Generator().manual_seed(derive_seed(self.settings.seed, "augment", self.global_step))
        x = pad_to_patches(augment(to_float(frames), self.augmentation, generator), self.tokenizer.patch_size)
        reconstruction = self.tokenizer(x)
        mse = F.mse_loss(reconstruction.frames.float(), x)
        loss: Tensor = mse + reconstruction.quantizer_loss
        if self.keeps_figures(self.global_step):
            self.log("train/loss", loss, prog_bar=True)
            self.log("train/psnr_db", psnr_db(mse), prog_bar=True)
            self.log("train/codes_used", float(reconstruction.tokens.unique().numel()))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start to count the valid set's tokens."""
        self._valid_tokens: list[Tensor] = []

    def validation_step(self, frames: Tensor, batch_idx: int) -> None:
        """Log the error of one batch, and count its tokens."""
        x = pad_to_patches(to_float(frames), self.tokenizer.patch_size)
        reconstruction = self.tokenizer(x)
        error = (reconstruction.frames.float().clamp(-0.5, 0.5) - x).square().flatten(1).mean(dim=1)
        batch = len(frames)
        self.log("valid/loss", error.mean(), batch_size=batch, prog_bar=True)
        self.log("valid/psnr_db", psnr_db(error).mean(), batch_size=batch, prog_bar=True)
        self._valid_tokens.append(reconstruction.tokens.flatten())

    def on_validation_epoch_end(self) -> None:
        """Log how many codes the valid set uses, and how evenly."""
        counts = torch.cat(self._valid_tokens).unique(return_counts=True)[1]
        shares = counts / counts.sum()
        self.log("valid/codes_used", float(len(counts)))
        self.log("valid/token_entropy_bits", -(shares * shares.log2()).sum())
        self._valid_tokens = []


class PriorModule(StageModule):
    """Trains a prior on tokens, int64 (B, h, w): its own loss, in nats a token."""

    def __init__(self, prior: Prior, settings: TrainingConfig) -> None:
        super().__init__(settings)
        self.prior = prior

    @property
    def model(self) -> Prior:
        """The prior."""
        return self.prior

    def training_step(self, tokens: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self.prior.loss(tokens)
        if self.keeps_figures(self.global_step):
            self._log_bits("train", loss, len(tokens))
        return loss

    def validation_step(self, tokens: Tensor, batch_idx: int) -> None:
        """Log the loss of one batch."""
        self._log_bits("valid", self.prior.loss(tokens), len(tokens))

    def _log_bits(self, stage: str, loss: Tensor, batch: int) -> None:
        bits = loss.detach() / math.log(2)
        self.log(f"{stage}/loss", loss, batch_size=batch)
        self.log(f"{stage}/bits_per_token", bits, batch_size=batch)
        self.log(f"{stage}/bits_per_image", bits * self.prior.length, batch_size=batch, prog_bar=True)


def psnr_db(mse: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in decibels of mean squared errors on a range of length 1."""
    return -10 * torch.log10(mse.clamp_min(1e-10))
