"""Makes recorded speakers for demos: a motion track, and a voice in step with it that is nobody's."""
