"""The owner at a guest's QMP server: ask for the launch, inject a secret.

Works with QEMU's server and with sevplug's. Source: QEMU, `docs/interop/qmp-spec.rst` and `qapi/misc-i386.json`.
"""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any

import attrs

from sevplug.owner.errors import OwnerError
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import SecretPacket
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import ApiVersion

_LONGEST_LINE = 1 << 20


@attrs.frozen
class ReportedLaunch:
    """What the host says of a launch; the measurement tells whether it is true."""

    policy: Policy
    api: ApiVersion
    state: str
    measurement: LaunchMeasurement


class QmpClient:
    """A connection to a QMP server, which answers one client at a time. A context manager; OwnerError for all failures.

    `address` is `unix:PATH` or `tcp:HOST:PORT`; `timeout`, in seconds, holds for each answer.
    """

    def __init__(self, address: str, timeout: float = 30) -> None:
        self._address = address
        self._socket = self._connect(timeout)
        try:
            self._lines = self._socket.makefile("rb")
            greeting = self._read()
            if "QMP" not in greeting:
                raise self._failed("expected QMP's greeting")
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> QmpClient:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """What the server returns for `command`; OwnerError with the server's words when it refuses."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(request).encode("ascii") + b"\n")
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise self._failed(f"{command}: {_description(answer['error'])}")
            # Anything else is an event.

    def launch(self) -> ReportedLaunch:
        """What the host says of the guest's launch, its measurement included."""
        status = self.execute("query-sev")
        try:
            if not status["enabled"]:
                raise self._failed("query-sev: SEV is not on for this guest")
            api = ApiVersion(status["api-major"], status["api-minor"], status["build-id"])
            policy, state = Policy(status["policy"]), str(status["state"])
            measurement = LaunchMeasurement.from_base64(self.execute("query-sev-launch-measure")["data"])
        except SevApiError as error:
            raise self._failed(str(error)) from None
        except (KeyError, TypeError):
            raise self._failed("query-sev: expected policy, API version and state") from None
        return ReportedLaunch(policy, api, state, measurement)

    def inject(self, packet: SecretPacket, gpa: int | None = None) -> None:
        """Inject `packet`, at guest-physical address `gpa` or where the firmware has its area for secrets."""
        arguments: dict[str, Any] = {"packet-header": packet.header_base64, "secret": packet.payload_base64}
        if gpa is not None:
            arguments["gpa"] = gpa
        self.execute("sev-inject-launch-secret", **arguments)

    def _connect(self, timeout: float) -> socket.socket:
        kind, _, rest = self._address.partition(":")
        host, _, port = rest.rpartition(":")
        try:
            if kind == "unix" and rest:
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(timeout)
                try:
                    connection.connect(rest)
                except BaseException:
                    connection.close()
                    raise
                return connection
            if kind == "tcp" and host and port.isdecimal():
                return socket.create_connection((host.strip("[]"), int(port)), timeout)
        except (OSError, ValueError, OverflowError) as error:
            raise self._failed(getattr(error, "strerror", None) or str(error)) from None
        raise self._failed("expected unix:PATH or tcp:HOST:PORT")

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline(_LONGEST_LINE)
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None
        if not line:
            raise self._failed("the server closed the connection")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._failed("expected a JSON object a line")
        return answer

    def _failed(self, why: str) -> OwnerError:
        return OwnerError(f"QMP {self._address}: {why}")


def _description(error: Any) -> str:
    return str(error.get("desc", "refused")) if isinstance(error, dict) else "refused"
