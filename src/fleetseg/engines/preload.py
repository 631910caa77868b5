"""Imported by the process that workers are forked from: everything for training on a CPU."""

import torch
from torch import nn

import fleetseg.engines.workers  # noqa: F401

# torch imports its compiler when the first optimiser is made: seconds, in every worker.
torch.optim.SGD([nn.Parameter(torch.zeros(1))])
