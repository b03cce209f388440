"""Forms of the networks for a CPU, each tested against the plain one in value and gradient."""
