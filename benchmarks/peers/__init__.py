"""The same federated training with other frameworks, and with none, for ``benchmarks.rounds``."""
