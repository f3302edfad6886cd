"""Certificates for a broker of this machine, made by openssl."""

import subprocess
from pathlib import Path


class Authority:
    """`ca` is what clients trust; `listener` is mosquitto's configuration for a TLS listener as localhost."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.ca = folder, folder / "ca.pem"
        # As openssl makes it unless told more: without a key usage, like the authorities of many small sites.
        self._make(self.ca, "/CN=Test authority", "-addext", "basicConstraints=critical,CA:TRUE")
        signed_by = ("-CA", str(self.ca), "-CAkey", str(self.ca.with_suffix(".key")))
        self._make(folder / "server.pem", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", *signed_by)

    def _make(self, path: Path, subject: str, *more: str) -> None:
        new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-out", str(path), "-keyout", str(path.with_suffix(".key")))
        subprocess.run([*new, "-days", "2", "-subj", subject, *files, *more], check=True, capture_output=True)

    def listener(self, port: int) -> str:
        certificate = self.folder / "server.pem"
        return f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {certificate.with_suffix('.key')}\n"
