"""Measures the sender's judgement and smoothing on real clips, for docs/judgement.md."""
