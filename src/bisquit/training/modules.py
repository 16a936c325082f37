"""The three stages as Lightning modules: what a step of training and of validation computes, and what is logged.

Every random number of step k comes from a seed made of (seed, k), so that a resumed run draws what the run would have
drawn. Of several processes, all draw for the whole batch and take their part, but for dropout, which each draws for
itself.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.autoencoder import ResidualBlock, pad_to_patches, to_float, to_uint8
from bisquit.errors import ConfigError, RunError
from bisquit.features import FeatureNetwork
from bisquit.frames.augment import Augmentation, augment
from bisquit.priors import Prior, PyramidPrior
from bisquit.processes import gathered, own_part
from bisquit.quantizers import Flawed
from bisquit.seeds import derive_seed
from bisquit.tokenizer import Tokenizer
from bisquit.training.conditions import Teller
from bisquit.training.data import Batch, Labelled
from bisquit.training.muon import MuonAdamW
from bisquit.training.recipes import TokenizerRecipe
from bisquit.training.settings import TrainingConfig
from bisquit.training.sharding import whole
from bisquit.training.sharpening import PatchDiscriminator, PerceptualDistance
from bisquit.transformer import Attention, Block, Transformer

Encode = Callable[[Tensor], Tensor | Flawed]
"""From frames, uint8 (B, H, W, 3), to tokens, int64 (B, h, w), or to flawed ones with what mends them."""
UNCHANGED = Augmentation()
_log = logging.getLogger("bisquit")


class StageModule(L.LightningModule):
    """What all stages share: the optimiser, its schedule, and the seeds of each step."""

    def __init__(self, settings: TrainingConfig) -> None:
        super().__init__()
        self.settings = settings
        self.left_out = 0
        """How many steps were left out since the run was begun or resumed, because their gradient was not finite."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """What is trained, and saved in the end."""

    def configure_optimizers(self) -> Any:
        """AdamW, and Muon where there is a rate for it, with weight decay on matrices and kernels alone."""
        rate, muon_rate = self.settings.learning_rate, self.settings.muon_learning_rate
        inner = inner_matrices(self.model) if muon_rate else {}
        taken = {id(p) for matrices in inner.values() for p in matrices}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in taken]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in others if p.ndim >= 2]},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
            *({"params": p, "muon": True, "stacked": n, "lr": muon_rate} for n, p in inner.items() if p),
        ]
        dtype = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else torch.float32
        optimizer = MuonAdamW(groups, dtype=dtype, lr=rate, weight_decay=self.settings.weight_decay, fused=True)
        total_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.settings.rate_factor(step, total_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what this step draws: its augmentation and its dropout."""
        torch.manual_seed(derive_seed(self.settings.seed, "step", self.global_step))
        self._passes = 0

    def on_train_start(self) -> None:
        """Have each of several processes drop out something else."""
        if own_part().count > 1:
            for module in self.model.modules():
                if isinstance(module, Transformer):
                    module.register_forward_pre_hook(self._seed_dropout)

    def _seed_dropout(self, module: nn.Module, inputs: Any) -> None:
        """Before a pass through a transformer: whatever is drawn for the whole batch has been drawn by then."""
        if module.training:
            self._passes += 1
            purpose = "dropout", self.global_step, self._passes, own_part().index
            torch.manual_seed(derive_seed(self.settings.seed, *purpose))

    def counted(self, rows: int, batch_idx: int) -> int:
        """Return how many of the rows of a valid batch count: none of one that another process counts."""
        alone = own_part().count == 1
        return 0 if not alone and self.trainer.datamodule.is_surplus(batch_idx) else rows  # type: ignore[attr-defined]

    def varied(self, frames: Tensor, augmentation: Augmentation) -> Tensor:
        """Return frames, uint8 (B, H, W, 3), augmented as this step's seed has it: float (B, 3, H, W)."""
        generator = torch.Generator().manual_seed(derive_seed(self.settings.seed, "augment", self.global_step))
        return augment(to_float(frames), augmentation, generator, own_part())

    def keeps_figures(self, step: int) -> bool:
        """Whether what a step logs is written down; for one in ten it is, and the others need not work it out."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it from elsewhere
        return (step + 1) % every == 0

    def pictures_of(self, step: int) -> str:
        """Return which pictures a step is of, in words: all of them, of several processes too."""
        batches = self.trainer.datamodule  # type: ignore[attr-defined]
        return f"pictures {', '.join(map(str, batches.indices(step)))} of the training set"

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, and log what its norm was before. Raises RunError if that is not finite and stops."""
        norm = whole(nn.utils.clip_grad_norm_(self.parameters(), self.settings.gradient_clip or math.inf))
        if not torch.isfinite(norm):
            self._leave_out_step(float(norm))
        elif self.keeps_figures(self.global_step):
            self.log("train/gradient_norm", norm)

    def _leave_out_step(self, norm: float) -> None:
        """Drop a gradient that is not finite, so that no weight changes. Raises RunError if the run is to stop."""
        step = self.global_step
        what = f"the gradient's norm is {norm} at step {step + 1}, of {self.pictures_of(step)}"
        if self.settings.bad_steps == "stop":
            raise RunError(
                f"{what}: no weight was changed by it, and --resume meets it again; try a lower --learning-rate or "
                "--bad-steps skip in another --out"
            )
        self.left_out += 1
        _log.warning("%s: it is left out, %d so far", what, self.left_out)
        for parameter in self.parameters():
            parameter.grad = None


class TokenizerModule(StageModule):
    """Trains a tokenizer on frames, uint8 (B, H, W, 3): mean squared error, the quantizer's own terms, sharpening.

    The valid loss is the mean squared error alone, of frames clipped to their range as they are shown.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: TokenizerRecipe, network: FeatureNetwork | None = None) -> None:
        """network: in whose activations frames are compared. Raises ConfigError if that is asked for without one."""
        super().__init__(recipe.training)
        self.tokenizer = tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.augmentation, self.sharpening = recipe.augmentation, recipe.sharpening
        self.distance = self.discriminator = None
        if self.sharpening.perceptual_weight:
            if network is None:
                raise ConfigError("perceptual_weight needs a feature network: `bisquit train features` makes one")
            self.distance = PerceptualDistance(network)
        if self.sharpening.adversarial_weight:
            self.discriminator = PatchDiscriminator()

    @property
    def model(self) -> Tokenizer:
        """The tokenizer."""
        return self.tokenizer

    def training_step(self, frames: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        x = pad_to_patches(self.varied(frames, self.augmentation), self.tokenizer.patch_size)
        reconstruction = self.tokenizer(x)
        mse = F.mse_loss(reconstruction.frames.float(), x)
        loss: Tensor = mse + reconstruction.quantizer_loss
        if self.distance is not None:
            distance = self.distance(reconstruction.frames, x)
            loss = loss + self.sharpening.perceptual_weight * distance
            self._log_figure("train/perceptual_distance", distance)
        if self.discriminator is not None:
            judgement = self.discriminator.judge(x, reconstruction.frames)
            loss = loss + self.sharpening.adversarial_weight * judgement.painter_loss + judgement.loss
            self._log_figure("train/discriminator_loss", judgement.loss)
        self._log_figure("train/loss", loss, prog_bar=True)
        self._log_figure("train/psnr_db", psnr_db(mse), prog_bar=True)
        if self.keeps_figures(self.global_step):
            self.log("train/codes_used", float(gathered(reconstruction.tokens).unique().numel()))
        return loss

    def _log_figure(self, name: str, value: Tensor, prog_bar: bool = False) -> None:
        if self.keeps_figures(self.global_step):
            self.log(name, value, prog_bar=prog_bar, sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        """Start to count the valid set's tokens."""
        self._valid_tokens: list[Tensor] = []

    def validation_step(self, frames: Tensor, batch_idx: int) -> None:
        """Log the error of one batch, and count its tokens."""
        x = pad_to_patches(to_float(frames), self.tokenizer.patch_size)
        reconstruction = self.tokenizer(x)
        error = (reconstruction.frames.float().clamp(-0.5, 0.5) - x).square().flatten(1).mean(dim=1)
        batch = self.counted(len(frames), batch_idx)
        self.log("valid/loss", error.mean(), batch_size=batch, prog_bar=True, sync_dist=True)
        self.log("valid/psnr_db", psnr_db(error).mean(), batch_size=batch, prog_bar=True, sync_dist=True)
        self._valid_tokens.append(reconstruction.tokens[:batch].flatten())

    def on_validation_epoch_end(self) -> None:
        """Log how many codes the valid set uses, and how evenly."""
        counts = gathered(torch.cat(self._valid_tokens)).unique(return_counts=True)[1]
        shares = counts / counts.sum()
        self.log("valid/codes_used", float(len(counts)), sync_dist=True)  # of numbers that all know, the mean is each
        self.log("valid/token_entropy_bits", -(shares * shares.log2()).sum(), sync_dist=True)
        self._valid_tokens = []


class PriorModule(StageModule):
    """Trains a prior: its own loss, told in bits where it is a likelihood, else by its name.

    A batch is tokens, int64 (B, h, w), or frames, uint8 (B, H, W, 3), which are changed at random and then tokenized;
    with their labels, where the prior is told of them.
    """

    def __init__(
        self,
        prior: Prior,
        settings: TrainingConfig,
        encode: Encode | None = None,
        augmentation: Augmentation = UNCHANGED,
        teller: Teller | None = None,
    ) -> None:
        """encode, augmentation: what frames are tokenized with, and how they are changed before. teller: what says of
        each what it shows."""
        super().__init__(settings)
        self.prior = prior
        self._encode, self._augmentation, self._teller = encode, augmentation, teller

    @property
    def model(self) -> Prior:
        """The prior."""
        return self.prior

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        pictures, condition = self._told(batch)
        tokens = pictures if self._encode is None else self._encode(to_uint8(self.varied(pictures, self._augmentation)))
        if isinstance(tokens, Flawed):
            assert isinstance(self.prior, PyramidPrior)
            loss = self.prior.loss(tokens.right, condition, tokens.seen)
        else:
            loss = self.prior.loss(tokens, condition)
        if self.keeps_figures(self.global_step):
            self._log_loss("train", loss, len(pictures))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one batch."""
        tokens, condition = self._told(batch)
        self._log_loss("valid", self.prior.loss(tokens, condition), self.counted(len(tokens), batch_idx))

    def _told(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the pictures of a batch, and what is said of them."""
        if self._teller is None:
            assert isinstance(batch, Tensor)
            return batch, None
        assert isinstance(batch, Labelled)
        labels = batch.labels.cpu()
        said = own_part().of(self._teller.draw(gathered(labels))) if self.training else self._teller.plain(labels)
        return batch.pictures, said.to(batch.pictures.device)

    def _log_loss(self, stage: str, loss: Tensor, batch: int) -> None:
        self.log(f"{stage}/loss", loss, batch_size=batch, sync_dist=True)
        if self.prior.loss_name is not None:
            self.log(f"{stage}/{self.prior.loss_name}", loss, batch_size=batch, prog_bar=True, sync_dist=True)
            return
        bits = loss.detach() / math.log(2)
        self.log(f"{stage}/bits_per_token", bits, batch_size=batch, sync_dist=True)
        self.log(f"{stage}/bits_per_image", bits * self.prior.length, batch_size=batch, prog_bar=True, sync_dist=True)


class FeaturesModule(StageModule):
    """Trains a feature network on frames and their classes: cross-entropy, a frame weighted by its class's rarity."""

    class_weights: Tensor

    def __init__(
        self, network: FeatureNetwork, class_weights: Tensor, augmentation: Augmentation, settings: TrainingConfig
    ) -> None:
        """class_weights: (classes,) float, what the loss of a frame of each class is multiplied by."""
        super().__init__(settings)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.augmentation = augmentation
        self.register_buffer("class_weights", class_weights, persistent=False)

    @property
    def model(self) -> FeatureNetwork:
        """The feature network."""
        return self.network

    def training_step(self, batch: Labelled, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        logits = self.network(self.varied(batch.pictures, self.augmentation)).logits
        loss = self._loss(logits, batch.labels)
        if self.keeps_figures(self.global_step):
            self.log("train/loss", loss, prog_bar=True, sync_dist=True)
            self.log("train/accuracy", accuracy(logits, batch.labels), sync_dist=True)
        return loss

    def validation_step(self, batch: Labelled, batch_idx: int) -> None:
        """Log the loss and the accuracy of one batch."""
        logits = self.network(to_float(batch.pictures)).logits
        size, loss = self.counted(len(batch.labels), batch_idx), self._loss(logits, batch.labels)
        self.log("valid/loss", loss, batch_size=size, prog_bar=True, sync_dist=True)
        self.log("valid/accuracy", accuracy(logits, batch.labels), batch_size=size, prog_bar=True, sync_dist=True)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean of the frames' weighted losses: over the weights it would hang on how frames are batched."""
        return F.cross_entropy(logits, labels, self.class_weights, reduction="none").mean()


def rarity_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Return a weight for each class, inverse to its share in labels (N,), each in [0, classes): float32 (classes,).

    Their mean over the frames is 1, and every class has an equal part in it. Each class must occur.
    """
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * counts)).float()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of labels (B,) that are the likeliest class of logits (B, classes)."""
    return (logits.argmax(dim=1) == labels).float().mean()


def inner_matrices(model: nn.Module) -> dict[int, list[Tensor]]:
    """Return the matrices inside of a model's blocks, by how many of them one parameter stacks."""
    single, stacks_of_3 = [], []
    for module in model.modules():
        match module:
            case ResidualBlock():
                single += [module.first.weight, module.second.weight]
            case Attention():
                stacks_of_3.append(module.qkv.weight)
                single.append(module.out.weight)
            case Block():
                single += [layer.weight for layer in module.mlp if isinstance(layer, nn.Linear)]
    return {1: single, 3: stacks_of_3}


def psnr_db(mse: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in decibels of mean squared errors on a range of length 1."""
    return -10 * torch.log10(mse.clamp_min(1e-10))
