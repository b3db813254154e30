"""Encoded video: Annex B, media time, the frame trace. Pure."""
