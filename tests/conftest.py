"""What several test files share: a network small enough for a test, with everything in it that can go wrong."""

import pytest
import torch
from torch import nn

torch.set_num_threads(1)  # on tensors this small two threads wait for each other more than they work


class Tiny(nn.Module):
    """Two stages named as a ResNet's, BatchNorm, dropout, a sum; any image size."""

    def __init__(self, channels, classes):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(6, classes)

    def forward(self, images):
        first = self.layer1(images - 0.5)
        return self.fc(self.dropout(first + self.layer2(first)).mean((2, 3)))


@pytest.fixture
def tiny():
    """Makes the tiny network; with a seed, its weights and BatchNorm statistics are drawn from it."""

    def build(channels=3, classes=4, seed=None):
        if seed is None:
            return Tiny(channels, classes)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = Tiny(channels, classes)
            for norm in (made.layer1[1], made.layer2[1]):
                nn.init.uniform_(norm.running_mean, -0.2, 0.2)
                nn.init.uniform_(norm.weight, 0.5, 1.5)
            return made

    return build
