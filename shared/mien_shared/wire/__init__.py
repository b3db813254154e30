"""What a speaker's device sends: motion packets, the filter that every receiver puts them through, and recorded tracks.

Pure: bytes in, values out.
"""
