"""Whom an OPC UA server is, and who may connect: certificates in a folder."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import os
import secrets
import socket
from pathlib import Path

from asyncua.crypto.cert_gen import (
    dump_private_key_as_pem,
    generate_private_key,
    generate_self_signed_app_certificate,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from okng.errors import OkngError
from okng.inspection.model_file import write_atomically
from okng.inspection.storage.locks import turn

DAYS = 3650  # how long a certificate that is made here holds
KEPT = 50  # certificates in `rejected`, so that strangers can't fill the disk


class Keys:
    """A folder with the server's certificate `own.der` and key `own.pem`, and the clients' certificates.

    `trusted` holds those that may connect, as DER or PEM; `rejected` those that tried, for a person to move. What is in
    `trusted` is read at every connection. A client is known by its own certificate; one that an authority has signed
    lies there itself, too. The server's two files are made where both are missing; `host` is the address that it
    listens at.
    """

    def __init__(self, folder: Path, host: str):
        self.folder, self.host = folder, host
        self.certificate, self.key = folder / "own.der", folder / "own.pem"
        self.trusted, self.rejected = folder / "trusted", folder / "rejected"

    def prepare(self) -> str:
        """Make what is missing; the URI by which the server's certificate calls it. `OkngError` for what can't be."""
        try:
            for folder in (self.trusted, self.rejected):
                folder.mkdir(parents=True, exist_ok=True)
            with turn(self.folder / ".own.lock", lambda: None):  # two that start at once make one
                if not self.certificate.exists() and not self.key.exists():
                    self._make()
        except OSError as error:
            raise OkngError(f"{self.folder} can't hold certificates: {error.strerror or error}") from error
        for path, other in ((self.certificate, self.key), (self.key, self.certificate)):
            if not path.exists():
                raise OkngError(f"{path} is missing beside {other}; bring it, or remove that to have both made anew")
        anew = "remove own.der and own.pem to have both made anew"
        own = read(self.certificate)
        if own is None or own.public_bytes(Encoding.DER) != self.certificate.read_bytes():
            raise OkngError(f"{self.certificate} is no certificate in DER; {anew}")
        if not holds(own):
            raise OkngError(f"{self.certificate} holds no longer; {anew}")
        try:
            key = load_pem_private_key(self.key.read_bytes(), None)
        except (ValueError, TypeError):  # no key; one with a password
            raise OkngError(f"{self.key} is no key in PEM without a password; {anew}") from None
        if key.public_key() != own.public_key():
            raise OkngError(f"{self.key} is not the key of {self.certificate}; {anew}")
        try:
            names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return names.get_values_for_type(x509.UniformResourceIdentifier)[0]
        except (x509.ExtensionNotFound, IndexError):
            raise OkngError(f"{self.certificate} names no URI of an application; {anew}") from None

    def knows(self, certificate: bytes | None) -> bool:
        """Whether a client with this `certificate` (DER) may connect; one that may not is laid into `rejected`."""
        if not certificate:
            return False
        with contextlib.suppress(OSError):
            for path in self.trusted.iterdir():
                known = read(path)
                if known is not None and known.public_bytes(Encoding.DER) == certificate:
                    return holds(known)
        with contextlib.suppress(OSError, OkngError):  # it is refused, whether or not it can be laid away
            lying = {path.name for path in self.rejected.iterdir()}
            thumbprint = hashlib.sha1(certificate, usedforsecurity=False).hexdigest()  # OPC UA's
            name = f"{thumbprint}.der"
            if name not in lying and len(lying) < KEPT:
                write_atomically(self.rejected / name, certificate)
        return False

    def _make(self) -> None:
        host = socket.gethostname()
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:okng:{secrets.token_hex(8)}")]
        for name in dict.fromkeys([host, self.host]):
            try:
                address = ipaddress.ip_address(name)
                names += [] if address.is_unspecified else [x509.IPAddress(address)]
            except ValueError:
                with contextlib.suppress(UnicodeError):  # no name of a computer in a network
                    names.append(x509.DNSName(name.encode("idna").decode()))
        key = generate_private_key()
        uses = [ExtendedKeyUsageOID.SERVER_AUTH]
        called = f"okng on {host.encode('ascii', 'ignore').decode()}"[:64]
        certificate = generate_self_signed_app_certificate(key, called, {}, names, uses, DAYS)
        with os.fdopen(os.open(self.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(dump_private_key_as_pem(key))
        try:
            write_atomically(self.certificate, certificate.public_bytes(Encoding.DER))
        except BaseException:
            self.key.unlink(missing_ok=True)  # or it would lie there without its certificate
            raise


def read(path: Path) -> x509.Certificate | None:
    """The certificate in a file, DER or the first of a PEM; None where there is none."""
    try:
        content = path.read_bytes()
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificates(content)[0]
        return x509.load_der_x509_certificate(content)
    except (OSError, ValueError):
        return None


def holds(certificate: x509.Certificate) -> bool:
    """Whether it does today."""
    return certificate.not_valid_before_utc <= datetime.datetime.now(datetime.UTC) <= certificate.not_valid_after_utc
