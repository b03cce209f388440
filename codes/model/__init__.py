"""The networks, one a file. They import torch and one another, nothing else."""
