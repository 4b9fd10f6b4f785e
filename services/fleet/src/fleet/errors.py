"""The error of fleet that the command line ends with a status of its own."""

from shared_clients.errors import Permanent


class WrongSettings(Permanent):
    """Settings have values that cannot be used; the message has a line for each of them."""
