"""Tnetstrings, the encoding of ZHTTP packets: `length:data` and a letter for the type.

Byte strings come back as `bytes`, keys of maps as `str`. What is written may be `str` or `bytes`.
"""


def dumps(value):
    if value is None:
        return b"0:~"
    if isinstance(value, bool):
        return _tagged(b"true" if value else b"false", b"!")
    if isinstance(value, int):
        return _tagged(str(value).encode(), b"#")
    if isinstance(value, str):
        return _tagged(value.encode(), b",")
    if isinstance(value, bytes):
        return _tagged(value, b",")
    if isinstance(value, dict):
        return _tagged(b"".join(dumps(part) for pair in value.items() for part in pair), b"}")
    return _tagged(b"".join(dumps(item) for item in value), b"]")


def loads(data):
    value, rest = _read(data)
    if rest:
        raise ValueError("something follows the value")
    return value


def _tagged(data, tag):
    return str(len(data)).encode() + b":" + data + tag


def _read(data):
    length, _, rest = data.partition(b":")
    end = int(length)
    body, tag, rest = rest[:end], rest[end : end + 1], rest[end + 1 :]
    if tag == b",":
        return body, rest
    if tag == b"#":
        return int(body), rest
    if tag == b"!":
        return body == b"true", rest
    if tag == b"~":
        return None, rest
    if tag not in b"]}" or not tag:
        raise ValueError(f"no type: {tag!r}")
    values = []
    while body:
        value, body = _read(body)
        values.append(value)
    if tag == b"]":
        return values, rest
    return {key.decode(): value for key, value in zip(values[::2], values[1::2])}, rest
