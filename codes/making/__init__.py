"""From light to data sets: the sensor, synthesis, preparation of GOPRO, interpolation."""
