"""A vision transformer small enough for a test, whose attention is written in several ways."""

import torch
import torch.nn.functional as F
from torch import nn

from small.networks import seeded


class Attention(nn.Module):
    """Self-attention of tokens n t c. how: fused, written (a softmax of its own), or single (without a head axis)."""

    def __init__(self, width, heads, how):
        super().__init__()
        self.heads, self.how = heads, how
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.how == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "single":
            weights = ((q[:, 0] @ k[:, 0].mT) * q.shape[-1] ** -0.5).softmax(-1)
            mixed = (weights @ v[:, 0])[:, None]
        else:
            mixed = torch.softmax((q @ k.mT) * q.shape[-1] ** -0.5, dim=-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class MultiHead(nn.Module):
    """The same by nn.MultiheadAttention. how: weights (asked for, and averaged), heads (not averaged) or hidden."""

    def __init__(self, width, heads, how):
        super().__init__()
        self.how = how
        self.inner = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=self.how != "hidden", average_attn_weights=self.how != "heads")[0]


class Block(nn.Module):
    """Norm, attention, norm, two layers, with two sums."""

    def __init__(self, width, heads, how):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = (Attention if how in ("fused", "written", "single") else MultiHead)(width, heads, how)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    """A vision transformer of patches of 4 x 4 pixels; prefix tokens before them; three classes.

    reads: "class", the first token; "mean", all tokens.
    """

    def __init__(self, *, prefix=1, depth=3, width=12, heads=2, how="fused", reads="class", size=(12, 8), classes=3):
        super().__init__()
        self.reads = reads
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        self.positions = nn.Parameter(torch.randn(1, prefix + size[0] * size[1] // 16, width))
        self.blocks = nn.Sequential(*(Block(width, heads, how) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        tokens = self.embed(images - 0.5).flatten(2).mT
        tokens = torch.cat([self.prefix.expand(len(images), -1, -1), tokens], 1) + self.positions
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens[:, 0] if self.reads == "class" else tokens.mean(1))


def vision(seed=0, **settings):
    """`Vision` in float64 and evaluation mode; its weights are large enough for attention far from even."""

    def build():
        network = Vision(**settings).double()
        for name, value in network.named_parameters():
            if value.ndim > 1 and "positions" not in name:
                value.data *= 2
        return network

    return seeded(build, seed).eval()
