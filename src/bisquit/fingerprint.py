"""A short name for a trained model: what it is, to the last bit of every weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def fingerprint(config: Mapping[str, Any], module: nn.Module) -> str:
    """Return 16 hexadecimal digits that name a model: its configuration and every weight, as float32."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
