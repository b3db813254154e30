"""Redis between the services: connection, keys, messages, channels, registry and placement."""
