"""FOMM on a device: one network folded for speed, and what keeps many avatars' sources beside it."""
