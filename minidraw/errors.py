"""The one exception whose message is written for the person at the keyboard."""


class BadInput(ValueError):
    """What was wrong with the input and what to do about it, in one line."""
