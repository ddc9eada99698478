from federated.data.partition import write_partition


def write_partition_of(folder, experiment, located, partition):
    write_partition(folder.partition_path, partition, {})
