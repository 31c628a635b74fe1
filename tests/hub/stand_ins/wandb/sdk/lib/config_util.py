"""Where transformers looks for the error that a changed configuration raises."""


class ConfigError(Exception):
    pass
