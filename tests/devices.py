"""The devices of tests: the CPU, and a CUDA device where there is one."""

import pytest
import torch

ON_CUDA = (
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
)
CUDA = pytest.param("cuda", marks=ON_CUDA)
DEVICES = ["cpu", CUDA]
