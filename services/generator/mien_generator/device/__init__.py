"""The device: makes the faces of all workers' sessions by the network, in batches, in a separate process."""
