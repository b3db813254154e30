"""The processes of one generator: the host, its workers, the device, and the warm process that starts them."""
