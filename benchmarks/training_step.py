"""A step of training in ways that the engine does not take, or takes only where asked.

    python -m benchmarks.training_step
    python -m benchmarks.training_step --sites 10 --batch 4 --repeats 20
    python -m benchmarks.training_step --device cuda

For the small network on volumes and on pictures of 28 voxels a side, medians, in processor time of
one thread of one process, on a GPU in seconds of the clock: a step of AdamW as the engine takes it
for one site after the other; the same with bfloat16 (`training.precision`), with `torch.compile`,
with the sites' weights stacked for good and `torch.func.vmap` over them, one step for all sites at
once, and as `runner.stacked_sites` takes it, with weights, losses and optimisers of each site.
Random numbers for images: time does not depend on them. What compiling takes at first is stated
apart.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from federated.run.memory import keep_freed_memory
from federated.training.loop import Precision, Step, place
from federated.training.objective import Objective
from federated.training.optimizers import AdamW
from federated.training.rule import LocalRule
from federated.training.stacked import take_stacked
from models.small_cnn import SmallCNN

CLASSES = 2


def network(dims: int, device: torch.device) -> nn.Module:
    """The small network, as workers place it."""
    torch.manual_seed(0)
    return place(SmallCNN(channels=1, classes=CLASSES, dims=dims, norm="group"), device)


def one_by_one(
    models: list[nn.Module], images: Tensor, labels: Tensor, autocast: bool
) -> Callable[[], None]:
    """A step of each model, one after the other."""
    optimizers = [torch.optim.AdamW(m.parameters(), fused=True) for m in models]

    def step() -> None:
        for model, optimizer, image, label in zip(models, optimizers, images, labels, strict=True):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
                loss = nn.functional.cross_entropy(model(image).float(), label)
            loss.backward()
            optimizer.step()

    return step


def stacked(models: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """The same step of all models at once, over stacked weights."""
    weights, buffers = stack_module_state(models)
    skeleton = models[0]
    optimizer = torch.optim.AdamW(list(weights.values()), fused=True)

    def loss(own: dict[str, Tensor], kept: dict[str, Tensor], image: Tensor, label: Tensor) -> Any:
        found = functional_call(skeleton, (own, kept), (image,))
        return nn.functional.cross_entropy(found, label)

    gradients = vmap(grad(loss), randomness="different")

    def step() -> None:
        found = gradients(weights, buffers, images, labels)
        for name, weight in weights.items():
            weight.grad = found[name]
        optimizer.step()

    return step


def as_the_engine(models: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], object]:
    """The same step as sites take it that train in one call."""

    def loss(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return nn.functional.cross_entropy(logits, targets, reduction=reduction)

    def take(indices: Tensor) -> tuple[Tensor, Tensor]:
        return images[0][indices], labels[0][indices]

    precision, objective = Precision("float32", images.device), Objective(take, loss)
    steps = [
        Step(model, image, label, objective, LocalRule(), AdamW(model.parameters()), precision)
        for model, image, label in zip(models, images, labels, strict=True)
    ]
    return lambda: take_stacked(steps)


def median_of(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The median of its seconds, once it is warm: of the processor, or of the clock for a GPU."""
    cuda = device.type == "cuda"
    clock, wait = (time.perf_counter if cuda else time.process_time), torch.cuda.synchronize
    step()
    seconds = []
    for _ in range(repeats):
        if cuda:
            wait()
        started = clock()
        step()
        if cuda:
            wait()
        seconds.append(clock() - started)
    return statistics.median(seconds)


def measure(dims: int, given: argparse.Namespace) -> list[str]:
    """The row of one kind of image: a step of all sites in each way, and what compiling took."""
    sites, batch, device = given.sites, given.batch, given.device
    images = torch.rand(sites, batch, 1, *(28,) * dims, device=device)
    labels = torch.randint(CLASSES, (sites, batch), device=device)
    seconds = []
    for autocast in (False, True):
        models = [network(dims, device) for _ in range(sites)]
        step = one_by_one(models, images, labels, autocast)
        seconds.append(median_of(step, given.repeats, device))
    started = time.perf_counter()
    compiled = torch.compile(network(dims, device))
    alone = one_by_one([compiled], images[:1], labels[:1], False)
    alone()
    compiling = time.perf_counter() - started
    seconds.append(sites * median_of(alone, given.repeats, device))
    models = [network(dims, device) for _ in range(sites)]
    seconds.append(median_of(stacked(models, images, labels), given.repeats, device))
    models = [network(dims, device) for _ in range(sites)]
    seconds.append(median_of(as_the_engine(models, images, labels), given.repeats, device))
    base = seconds[0]
    cells = [f"{each * 1e3:.0f} ms, {each / base:.2f}" for each in seconds]
    return ["volumes" if dims == 3 else "pictures", *cells, f"{compiling:.0f} s"]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as workers do
    on = "one thread" if given.device.type == "cpu" else torch.cuda.get_device_name()
    table = Table(title=f"a step of {given.sites} sites, batches of {given.batch}, {on}")
    for column in ("", "float32", "bfloat16", "compiled", "stacked", "in one call", "compiling"):
        table.add_column(column, justify="right" if column else "left")
    for dims in (3, 2):
        table.add_row(*measure(dims, given))
    Console(width=125).print(table)


if __name__ == "__main__":
    main()
