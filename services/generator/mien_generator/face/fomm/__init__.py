"""The paper's face generator: First Order Motion Model at half width (needs `mien-generator[torch]`).

`config` and `cli` import without torch; everything else here wants it.
"""
