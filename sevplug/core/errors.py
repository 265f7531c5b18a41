"""What can go wrong, by who has to act on it.

Every message is one line that names the file or option, the field and what was expected; key material never is part
of one.  The command line turns the classes into exit statuses.
"""


class SevplugError(Exception):
    """Base of everything sevplug raises on purpose; the text is one line, fit to be shown as it is."""


class ConfigError(SevplugError):
    """The user's configuration cannot be honoured (exit status 2)."""


class PluginError(ConfigError):
    """A plug-in is unknown, twice there, or failed; the text names its distribution and how to leave it out."""


class SnapshotError(ConfigError):
    """A snapshot cannot be made, or is none that fits this machine."""


class LaunchRefused(SevplugError):
    """The launch cannot go on (exit status 4): a wrong state, a refused packet, an image that does not fit.

    ``status`` is the status code of the platform's firmware where one applies, else None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EngineError(SevplugError):
    """The CPU engine is not the one this release knows, or it did what it never should."""


class GuestFault(Exception):
    """Raised by a hook to put an exception into the guest, before the instruction at RIP has any effect.

    ``vector`` is 0..255; ``error_code`` is pushed where it is not None.  It is no error of ours, hence no
    SevplugError.
    """

    def __init__(self, vector: int, error_code: int | None = None) -> None:
        super().__init__(f"guest exception {vector}")
        self.vector = vector
        self.error_code = error_code
