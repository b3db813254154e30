"""Fits the mouth of participants without a camera: what opens with the lips, and how far a voice opens them."""
