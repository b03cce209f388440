"""S-SDM: a blurry colour photograph and a spike stream in, a sharp colour video out (arXiv 2403.09486)."""
