"""A port of loopback that takes TLS and plain connections and passes both to another port, for tests of TLS.

The server of the tests is built without TLS. Sentinels and replicas connect to the same port without it.
"""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
_HANDSHAKE = b"\x16"  # the type of a TLS record that begins a connection (RFC 8446, section 5.1)


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "redis.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


class TlsFront:
    """Listens on `port` and connects to `behind`. tls_connections counts those that came by TLS."""

    def __init__(self, port: int, behind: int, certificate: Path) -> None:
        self._behind = behind
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server((HOST, port))
        self._listener.setblocking(False)
        self._tasks = {asyncio.create_task(self._accept())}
        self.tls_connections = 0

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            self._tasks.add(asyncio.create_task(self._serve(client)))

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(client, readable.set)
        await readable.wait()
        loop.remove_reader(client)
        is_tls = client.recv(1, socket.MSG_PEEK) == _HANDSHAKE
        self.tls_connections += is_tls
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, client, ssl=self._context if is_tls else None
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._behind)
            await asyncio.wait(
                [asyncio.create_task(_carry(reader, server_writer)), asyncio.create_task(_carry(server_reader, writer))]
            )
        finally:
            transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def tls_fronts(ports: Mapping[int, int], certificate: Path) -> AsyncIterator[list[TlsFront]]:
    """A front for each port (key) of a server (value)."""
    fronts = [TlsFront(port, behind, certificate) for port, behind in ports.items()]
    try:
        yield fronts
    finally:
        for front in fronts:
            await front.aclose()
