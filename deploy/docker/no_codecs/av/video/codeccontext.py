from av import VideoCodecContext

__all__ = ["VideoCodecContext"]
