"""Quality of face generators: `mien model evaluate` measures it, `mien model animate` writes a video to look at."""
