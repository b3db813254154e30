from av import Packet

__all__ = ["Packet"]
