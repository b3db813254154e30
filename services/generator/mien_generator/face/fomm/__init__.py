"""The paper's face generator: First Order Motion Model at half width (needs `mien-generator[torch]`).

`config`, `count`, `rewrite`, `shapes` and `weights` import without torch; the other modules need it.
"""
