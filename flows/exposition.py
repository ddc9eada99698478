"""The numbers of a collector in Prometheus' text format."""

from prometheus_client import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry


def exposition(collector: Collector) -> bytes:
    """All numbers of a collector as they are now, and no others of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
