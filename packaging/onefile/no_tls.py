"""In place of Python's module ssl: the names that other modules use when they are imported.

binfmtd uses no TLS, so the one file has no OpenSSL, which would have to be kept up to date.  prometheus_client imports
``ssl`` all the same, for functions that binfmtd does not call.
"""


class Missing(OSError):  # noqa: N818  it stands for other names, most of which are no errors
    """Each name of the module: a class, since annotations and ``except`` take classes."""

    def __init__(self, *_: object, **__: object) -> None:
        raise NotImplementedError("the one file has no TLS")


def __getattr__(name: str) -> type[Missing]:
    if name.startswith("__"):
        raise AttributeError(name)
    return Missing
