"""The library: data, partitions, strategies, privacy, compression, protection and the local loop.

Pure Python with torch and numpy; it knows nothing of Prefect, MLflow or DVC.
"""
