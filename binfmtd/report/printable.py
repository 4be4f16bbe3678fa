"""Text from the kernel, a file name or a config, made safe for a terminal or a log."""


def printable(text: str) -> str:
    """Escape what could steer a terminal or cannot be encoded: control characters, raw bytes, unusual blanks."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def even(text: str) -> str:
    """Escape as ``printable`` does, and also wide and combining characters: each takes one column of a terminal."""
    text = printable(text)
    if text.isascii():
        return text
    from unicodedata import category, east_asian_width

    def takes_one(character: str) -> bool:
        return east_asian_width(character) not in "WF" and category(character)[0] != "M"

    return "".join(c if takes_one(c) else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
