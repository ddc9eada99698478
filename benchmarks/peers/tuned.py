"""The limit of this machine as far as it is known: processes of one thread, and nothing else.

One process for each core keeps its cases, network and freed memory; the largest site comes first;
weights pass through shared memory; AdamW is fused. ``--layout`` chooses channels last or not, or
channels last ``throughout``: of images of one channel either order is the same one, which torch
takes for channels first unless it is told, and the features of the first convolution with them.

    python -m benchmarks.peers.tuned WORK OUT
"""

import argparse
import ctypes
import os
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.work import Marks, Work, evaluate, train, weights_of, write_weights

# glibc's numbers of these settings, in malloc.h: freed memory is kept, in pieces that fit again, as
# the project's workers do (federated/run/memory.py).
M_MXFAST, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = 1, -1, -3
LAYOUTS = ("first", "last", "throughout")
IN_WHOLE_PIECES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}


def keep_freed_memory() -> None:
    """Let this process use freed memory again; does nothing where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**31 - 1)
        mallopt(M_MXFAST, 0)


def channels_last(model: nn.Module, throughout: bool = False) -> nn.Module:
    """The model with the weights of its convolutions in channels-last order.

    Args:
        model: the network, changed in place.
        throughout: whether that is told of weights for a single channel too.
    """
    for parameter in model.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if throughout and parameter.ndim > 3 and parameter.shape[1] == 1:
            parameter.data = parameter.data[:, 0].unsqueeze(-1).movedim(-1, 1)
    return model


def work_on(
    folder: Path, layout: str, start: Tensor, ended: Tensor, asked: Any, answers: Any
) -> None:
    """One process: train and evaluate the sites that are asked for, until ``None`` is.

    Args:
        folder: the work's.
        layout: the order of weights, one of ``LAYOUTS``.
        start: the weights of the round, ``(size,)``, in shared memory.
        ended: those of each site after training, ``(sites, size)``.
        asked: the queue of (what, site, round).
        answers: the queue of what is done.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    work = Work.read(folder)
    model = work.model()
    if layout != "first":
        channels_last(model, layout == "throughout")
    tensors = list(model.state_dict().values())
    answers.put(None)
    while (item := asked.get()) is not None:
        what, site, round_number = item
        unpack(start, tensors)
        if what == "train":
            train(work, model, site, round_number, fused=True)
            pack(tensors, ended[site])
        else:
            evaluate(work, model, site)
        answers.put(None)


def unpack(vector: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a vector ``(size,)`` into tensors, in order."""
    for part, tensor in zip(vector.split([t.numel() for t in tensors]), tensors, strict=True):
        tensor.copy_(part.view(tensor.shape))


def pack(tensors: Sequence[Tensor], vector: Tensor) -> None:
    """Copy tensors into a vector ``(size,)``, in order."""
    for part, tensor in zip(vector.split([t.numel() for t in tensors]), tensors, strict=True):
        part.copy_(tensor.reshape(-1))


def main(folder: Path, out: Path, layout: str) -> None:
    """Train, and write the marks and the final weights to ``out``."""
    work, marks = Work.read(folder), Marks()
    model = work.model()
    tensors = list(model.state_dict().values())
    size = sum(tensor.numel() for tensor in tensors)
    start, ended = torch.zeros(size).share_memory_(), torch.zeros(len(work.sites), size)
    ended.share_memory_()
    pack(tensors, start)
    context = get_context("spawn")
    asked, answers = context.Queue(), context.Queue()
    count = len(os.sched_getaffinity(0))
    given = (folder, layout, start, ended, asked, answers)
    processes = [context.Process(target=work_on, args=given) for _ in range(count)]
    for process in processes:
        process.start()
    for _ in processes:
        answers.get()
    shares = torch.tensor(work.sizes, dtype=torch.float32) / sum(work.sizes)
    order = sorted(range(len(work.sites)), key=lambda site: -work.sizes[site])
    marks.now()
    for round_number in range(1, work.rounds + 1):
        for what in ("train", "evaluate"):
            for site in order:
                asked.put((what, site, round_number))
            for _ in order:
                answers.get()
            if what == "train":
                start.copy_(shares @ ended)
        marks.now()
    for _ in processes:
        asked.put(None)
    for process in processes:
        process.join()
    unpack(start, tensors)
    marks.write(out)
    write_weights(out / "weights.npz", weights_of(model))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="last")
    given = parser.parse_args()
    os.environ |= IN_WHOLE_PIECES  # of the processes that it starts
    main(given.work, given.out, given.layout)
