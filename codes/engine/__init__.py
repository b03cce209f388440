"""A training run in its parts, and what every command shares: options, devices, ranks, checkpoints, caches."""
