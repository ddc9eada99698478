"""torch's AdamW and SGD as they are, without what torch compiles training with.

To make one of torch's, and to take its first step, imports ``torch._dynamo``: a second of processor
time and tens of megabytes in every process that trains, to tell a compiler what it is to leave
alone. Nothing is compiled here, so there is nobody to be told.
"""

from inspect import unwrap

import torch


class _NotCompiled(torch.optim.Optimizer):
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)


class AdamW(_NotCompiled, torch.optim.AdamW):
    """torch's AdamW, to the last bit."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class SGD(_NotCompiled, torch.optim.SGD):
    """torch's SGD, to the last bit."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))
