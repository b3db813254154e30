"""What the benchmarks' tests share."""

from small_models import exported, one_thread, own_config, small_config

__all__ = ["exported", "one_thread", "own_config", "small_config"]
