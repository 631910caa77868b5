"""Imported by the process that workers are forked off: all that training on a CPU needs."""

import torch
from torch import nn

import fleetseg.engines.workers  # noqa: F401

# torch imports its compiler when the first optimiser is made: seconds, and in each worker anew.
torch.optim.SGD([nn.Parameter(torch.zeros(1))])
