"""The neighbours: SpkDeblurNet, STIR and SAN, what they are given, and their losses. The paper imports none."""
