"""The code that Mien's services share: wire format, messages, registry, clock, settings, metrics."""
