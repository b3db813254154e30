"""The data that a speaker's device sends: motion packets, the filter of the gateway, and recorded tracks.

Pure: bytes in, values out.
"""
