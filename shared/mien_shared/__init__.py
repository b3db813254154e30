"""What Mien's services agree on: wire, messages, registry, clock, settings, metrics."""
