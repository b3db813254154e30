"""FOMM on a device: the network folded for speed, and the storage for the sources of many avatars."""
