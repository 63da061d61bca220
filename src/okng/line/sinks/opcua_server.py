"""An OPC UA server for reading alone: what asyncua's leaves open to strangers is closed here."""

from __future__ import annotations

from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from asyncua.ua.status_codes import StatusCodes

from okng.line.sinks.opcua_keys import Keys

CONNECTIONS = 30  # at once: controllers and screens; asyncua's 1000 are all the files that a process may open
LARGEST = 1 << 20  # bytes of a message that the server works on
WAITING = 20  # messages of a connection; asyncua keeps with each a copy of what came after it
OPEN = [ua.SecurityPolicyType.NoSecurity]
ENCRYPTED = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
]


class Readers(UserManager):
    """Who may activate a session, without which nothing is served: anyone, or who has a certificate that `keys` knows.

    The certificate is the one whose key the client has opened its encrypted channel with. A connection without such a
    channel has none. All are users, who may read.
    """

    def __init__(self, keys: Keys | None):
        self.keys = keys

    def get_user(
        self, iserver: InternalServer, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """The user, or None for who may not."""
        return User(role=UserRole.User) if self.keys is None or self.keys.knows(certificate) else None


class ForReading(InternalServer):
    """asyncua's server, in which nobody can register servers, and a session belongs to its connection."""

    def __init__(self, keys: Keys | None):
        super().__init__(user_manager=Readers(keys))
        self.max_connections = CONNECTIONS
        self.max_pending_messages_per_connection = WAITING

    def register_external_session(self, session: InternalSession) -> None:
        """Do nothing: another connection would find it by its number, which is counted up, and could take it over."""

    def register_server(self, server: Any, conf: Any = None) -> None:
        """Refuse: it is no directory of servers."""
        raise ServiceError(StatusCodes.BadServiceUnsupported)


async def made(keys: Keys | None, uri: str, host: str, port: int) -> Server:
    """The server, ready for its variables and to be started; it is called `uri`."""
    server = Server(iserver=ForReading(keys))
    await server.init()
    server.limits.max_message_size = LARGEST
    server.limits.max_chunk_count = LARGEST // server.limits.max_recv_buffer + 1
    server.set_identity_tokens([ua.AnonymousIdentityToken])  # else "admin" with any password may write
    server.allow_remote_admin(False)
    server.set_endpoint(f"opc.tcp://{host}:{port}")
    server.set_server_name("okng")
    server.application_type, server.product_uri = ua.ApplicationType.Server, "urn:okng"
    await server.set_application_uri(uri)
    if keys is not None:
        await server.load_certificate(keys.certificate)
        await server.load_private_key(keys.key)
    server.set_security_policy(OPEN if keys is None else ENCRYPTED)
    return server
