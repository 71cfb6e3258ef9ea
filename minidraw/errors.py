"""What minidraw raises: one base, a kind for each cause. Every message is one line for the person at the keyboard."""


class MinidrawError(Exception):
    """The base of them all. `arguments` are the names of those to change: the command line adds its flags."""

    def __init__(self, message, *arguments):
        super().__init__(message)
        self.arguments = arguments


class BadInput(MinidrawError, ValueError):
    """Something that was given is wrong."""


class Diverged(MinidrawError, ArithmeticError):
    """The loss or its gradient is no longer finite; the parameters are still those of the step before."""


class WorkerLost(MinidrawError, RuntimeError):
    """A process that shared the batch has ended; the parameters are still those of the step before."""
