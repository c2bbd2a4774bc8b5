"""A WebSocket client made of Python's `websockets`. The protocol between it and the test stands in `peer.rs`."""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

# A line has a whole message in it.
LINE_BYTES_MAX = 1 << 24
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def say(**answer):
    print(json.dumps(answer), flush=True)


def tls_context(ca, version):
    context = ssl.create_default_context(cafile=ca)
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


async def open_(url, headers, protocols, compression, ca, tls):
    """Connects, and says how that went; the connection, if there is one."""
    encryption = {"ssl": tls_context(ca, tls)} if url.startswith("wss:") else {}
    try:
        connection = await connect(
            url,
            additional_headers=headers,
            subprotocols=protocols or None,
            compression="deflate" if compression else None,
            max_size=None,
            # The test says what is sent.
            ping_interval=None,
            proxy=None,
            **encryption,
        )
    except InvalidStatus as error:
        say(refused={"status": error.response.status_code, "body": error.response.body.decode()})
        return None
    except (OSError, ssl.SSLError) as error:
        say(failed=repr(error))
        return None
    encrypted = connection.transport.get_extra_info("ssl_object")
    say(opened={
        "protocol": connection.subprotocol,
        "extensions": connection.response.headers.get("Sec-WebSocket-Extensions"),
        "tls": encrypted and encrypted.version(),
    })
    return connection


async def read(connection):
    """Says what comes, to the end."""
    try:
        while True:
            message = await connection.recv()
            say(**({"text": message} if isinstance(message, str) else {"binary": message.hex()}))
    except ConnectionClosed:
        close = connection.protocol.close_rcvd
        say(closed=close and {"code": int(close.code), "reason": close.reason})


async def ping(connection, data):
    await (await connection.ping(data))
    say(pong=data.hex())


async def main():
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    connection, tasks = None, []
    while line := await lines.readline():
        command = json.loads(line)
        match command.pop("do"):
            case "open":
                connection = await open_(**command)
                if connection is not None:
                    tasks.append(asyncio.create_task(read(connection)))
            case "text":
                await connection.send(command["text"])
            case "binary":
                await connection.send(bytes.fromhex(command["hex"]))
            case "ping":
                tasks.append(asyncio.create_task(ping(connection, bytes.fromhex(command["hex"]))))
            case "close":
                tasks.append(asyncio.create_task(connection.close(command["code"], command["reason"])))


asyncio.run(main())
