"""Draws the bundled avatar: sculpted from signed distances, groomed, lit, and set before a room out of focus."""
