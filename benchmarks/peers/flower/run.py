"""FedAvg with Flower's simulation: one virtual client on each core at a time.

python -m benchmarks.peers.flower.run WORK OUT
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers.work import Marks, Work, evaluate, train, write_weights

FOLDER, OUT = Path(sys.argv[1]), Path(sys.argv[2])
app = ClientApp()


@app.train()
def train_site(message: Message, context: Context) -> Message:
    """Train from the weights that came, and send what they became."""
    work = Work.read(FOLDER)
    model = work.model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    site = int(context.node_config["partition-id"])
    loss = train(work, model, site, int(message.content["config"]["server-round"]))
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"loss": loss, "num-examples": work.sizes[site]}),
        }
    )
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate_site(message: Message, context: Context) -> Message:
    """Evaluate the weights that came on the site's own cases."""
    work = Work.read(FOLDER)
    model = work.model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    count, right = evaluate(work, model, int(context.node_config["partition-id"]))
    told = MetricRecord({"accuracy": right / max(1, count), "num-examples": count})
    return Message(content=RecordDict({"metrics": told}), reply_to=message)


class Marked(FedAvg):
    """Flower's FedAvg, which notes when rounds begin and end."""

    marks = Marks()

    def configure_train(self, server_round: int, *given: Any, **named: Any) -> Any:
        """As Flower's."""
        if server_round == 1:
            self.marks.now()
        return super().configure_train(server_round, *given, **named)

    def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
        """As Flower's."""
        found = super().aggregate_evaluate(server_round, replies)
        self.marks.now()
        return found


server = ServerApp()


@server.main()
def rounds(grid: Grid, context: Context) -> None:  # noqa: ARG001 - as Flower calls it
    """Run the rounds, and write the marks and the final weights."""
    work = Work.read(FOLDER)
    count = len(work.sites)
    strategy = Marked(min_train_nodes=count, min_evaluate_nodes=count, min_available_nodes=count)
    first = ArrayRecord(work.model().state_dict())
    result = strategy.start(grid=grid, initial_arrays=first, num_rounds=work.rounds)
    strategy.marks.write(OUT)
    found = result.arrays.to_torch_state_dict()
    write_weights(OUT / "weights.npz", {name: value.numpy() for name, value in found.items()})


if __name__ == "__main__":
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=len(Work.read(FOLDER).sites),
        backend_config={
            "init_args": {"num_cpus": cores, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
