"""Whom an OPC UA server is, and who may connect: certificates in a folder."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.crypto.cert_gen import (
    dump_private_key_as_pem,
    generate_private_key,
    generate_self_signed_app_certificate,
)
from asyncua.crypto.permission_rules import PermissionRuleset
from asyncua.crypto.security_policies import SECURITY_POLICY_TYPE_MAP, SecurityPolicyFactory, SecurityPolicyNone
from asyncua.server.server import Server
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from okng.errors import OkngError
from okng.inspection.model_file import write_atomically

POLICIES = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
]
DAYS = 3650  # how long a certificate that is made here holds
KEPT = 50  # certificates in `rejected`, so that strangers can't fill the disk


class Keys:
    """A folder with the server's certificate `own.der` and key `own.pem`, and the clients' certificates.

    `trusted` holds those that may connect, as DER or PEM; `rejected` those that tried, for a person to move. What is in
    `trusted` is read at every connection. A client is known by its own certificate; one that an authority has signed
    lies there itself, too. The server's two files are made where both are missing.
    """

    def __init__(self, folder: Path, host: str):
        self.folder, self.host = folder, host
        self.certificate, self.key = folder / "own.der", folder / "own.pem"
        self.trusted, self.rejected = folder / "trusted", folder / "rejected"

    def prepare(self) -> str:
        """Make what is missing; the URI by which the server's certificate calls it. `OkngError` where it is over."""
        for folder in (self.trusted, self.rejected):
            folder.mkdir(parents=True, exist_ok=True)
        if self.certificate.exists() != self.key.exists():
            one, other = sorted((self.certificate, self.key), key=Path.exists)
            raise OkngError(f"{one} is missing beside {other}; bring it, or remove that to have both made anew")
        if not self.certificate.exists():
            self._make()
        own = read(self.certificate)
        if own is None:
            raise OkngError(f"{self.certificate} is no certificate; remove it and {self.key} to have both made anew")
        if not holds(own):
            raise OkngError(f"{self.certificate} holds no longer; remove it and {self.key} to have both made anew")
        try:
            names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return names.get_values_for_type(x509.UniformResourceIdentifier)[0]
        except (x509.ExtensionNotFound, IndexError):
            raise OkngError(f"{self.certificate} names no URI of an application, which OPC UA asks for") from None

    def knows(self, certificate: bytes | None) -> bool:
        """Whether a client with this `certificate` (DER) may connect; one that may not is laid into `rejected`."""
        if not certificate:
            return False
        for path in self.trusted.iterdir():
            known = read(path)
            if known is not None and known.public_bytes(Encoding.DER) == certificate:
                return holds(known)
        name = f"{hashlib.sha256(certificate).hexdigest()[:16]}.der"
        seen = sorted(self.rejected.iterdir(), key=lambda path: path.stat().st_mtime)
        if name not in (path.name for path in seen):
            for path in seen[: max(0, len(seen) - KEPT + 1)]:
                path.unlink()
            write_atomically(self.rejected / name, certificate)
        return False

    def secure(self, server: Server) -> None:
        """Let only known clients open a channel to `server`, which runs; one without encryption tells endpoints alone.

        asyncua asks for a client's certificate only when a session begins, and only where the client gives one.
        """
        assert server.bserver is not None
        with_channel = [
            Known(self, *SECURITY_POLICY_TYPE_MAP[kind][:2], server.iserver.certificate, server.iserver.private_key)
            for kind in POLICIES
        ]
        without = SecurityPolicyFactory(SecurityPolicyNone, ua.MessageSecurityMode.None_, permission_ruleset=Nothing())
        server.bserver.set_policies([*with_channel, without])

    def _make(self) -> None:
        host = socket.gethostname()
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:{host}:okng"), x509.DNSName(host)]
        try:
            address = ipaddress.ip_address(self.host)
            names += [] if address.is_unspecified else [x509.IPAddress(address)]
        except ValueError:
            names += [] if self.host == host else [x509.DNSName(self.host)]
        key = generate_private_key()
        uses = [ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = generate_self_signed_app_certificate(key, f"okng on {host}", {}, names, uses, DAYS)
        try:
            with os.fdopen(os.open(self.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(dump_private_key_as_pem(key))
            write_atomically(self.certificate, certificate.public_bytes(Encoding.DER))
        except BaseException:
            self.key.unlink(missing_ok=True)  # or it would lie there without its certificate
            raise


class Known(SecurityPolicyFactory):
    """Channels for clients that `keys` knows."""

    def __init__(self, keys: Keys, *more: Any):
        super().__init__(*more)
        self.keys = keys

    def create(self, peer_certificate: bytes | None) -> Any:
        """The policy of a channel to the client with this certificate."""
        if not self.keys.knows(peer_certificate):
            raise ua.uaerrors.BadUserAccessDenied  # asyncua ends the connection
        return super().create(peer_certificate)


class Nothing(PermissionRuleset):
    """Of what needs a session nothing is permitted; endpoints can be asked for."""

    def check_validity(self, user: Any, action_type: Any, body: Any) -> bool:
        """False."""
        return False


def read(path: Path) -> x509.Certificate | None:
    """The certificate in a file, DER or PEM; None where there is none."""
    try:
        content = path.read_bytes()
        is_pem = content.lstrip().startswith(b"-----")
        return x509.load_pem_x509_certificate(content) if is_pem else x509.load_der_x509_certificate(content)
    except (OSError, ValueError):
        return None


def holds(certificate: x509.Certificate) -> bool:
    """Whether it does today."""
    now = datetime.datetime.now(datetime.UTC)
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
