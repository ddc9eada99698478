"""Flower's SecAgg+ workflow and mod on random updates, in one process; run by secagg.py.

For Flower's own environment (`pip install flwr`), with nothing of this project in it. Its server
workflow and its client mod are used as they are; messages are handed over in memory. Prints one
JSON line: seconds of plain FedAvg, and of a round of SecAgg+ around the same updates.
"""

import json
import logging
import sys
import time
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitRes,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.supercore.task_identity import TaskIdentity

# What a running Flower sets for the process of a task.
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
logging.getLogger("flwr").setLevel(logging.ERROR)


class Proxy(ClientProxy):
    """A site by its number."""

    def __init__(self, node: int) -> None:
        super().__init__(str(node))
        self.node_id = node

    def get_properties(self, *_: Any) -> Any: ...
    def get_parameters(self, *_: Any) -> Any: ...
    def fit(self, *_: Any) -> Any: ...
    def evaluate(self, *_: Any) -> Any: ...
    def reconnect(self, *_: Any) -> Any: ...


class Grid:
    """Hands each message to the mod of its site and collects the answers."""

    def __init__(self, updates: dict[int, Any]) -> None:
        self.updates = updates
        self.contexts = {node: context(node) for node in updates}

    def send_and_receive(self, messages: Any, **_: Any) -> list[Message]:
        return [self.deliver(message) for message in messages]

    def deliver(self, message: Message) -> Message:
        # Sent over a network, a message is a copy; the mod takes its settings out of it.
        content = RecordDict(
            {
                name: ConfigRecord(dict(record)) if isinstance(record, ConfigRecord) else record
                for name, record in message.content.items()
            }
        )
        own = self.contexts[message.metadata.dst_node_id]
        return secaggplus_mod(Message(content=content, metadata=message.metadata), own, self.train)

    def train(self, message: Message, _: Context) -> Message:
        parameters = self.updates[message.metadata.dst_node_id]
        result = FitRes(Status(Code.OK, ""), parameters, 100, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=True), reply_to=message)


def context(node: int) -> Context:
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


def main() -> None:
    sites, length, shares, threshold = map(int, sys.argv[1:5])
    rng = np.random.default_rng(0)
    updates = {
        node: ndarrays_to_parameters([rng.normal(0, 0.01, length).astype(np.float32)])
        for node in range(1, sites + 1)
    }
    manager = SimpleClientManager()
    for node in updates:
        manager.register(Proxy(node))
    strategy = FedAvg(min_fit_clients=sites, min_available_clients=sites, fraction_evaluate=0.0)
    legacy = LegacyContext(context(0), strategy=strategy, client_manager=manager)
    first = ndarrays_to_parameters([np.zeros(length, np.float32)])
    legacy.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(first, True)
    legacy.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    started = time.process_time()
    results = [
        (Proxy(node), FitRes(Status(Code.OK, ""), update, 100, {}))
        for node, update in updates.items()
    ]
    expected, _ = strategy.aggregate_fit(1, results, [])
    plain = time.process_time() - started
    workflow = SecAggPlusWorkflow(num_shares=shares, reconstruction_threshold=threshold)
    started = time.process_time()
    workflow(Grid(updates), legacy)
    secure = time.process_time() - started
    found = compat.arrayrecord_to_parameters(legacy.state.array_records[MAIN_PARAMS_RECORD], True)
    difference = parameters_to_ndarrays(found)[0] - parameters_to_ndarrays(expected)[0]
    print(json.dumps({"plain": plain, "secure": secure, "error": float(abs(difference).max())}))


if __name__ == "__main__":
    main()
