"""The systems: how each is started, and what a client asks it for.

Every edge has one worker. What counts as the server is the edge alone, pinned to its core, for Forebay and for Condure alike;
nginx and the bare loop have nothing behind them.
"""

import dataclasses
import shutil
import subprocess
from pathlib import Path

from . import machine
from .machine import Absent, SERVER_CORE, TOOLS, free_port
from .processes import Process

# Above all that is opened, and below what a process may have.
CONNECTIONS_MAX = 19_900

ORG = "1"


@dataclasses.dataclass
class Server:
    """A server that runs: where clients connect, and the processes whose cost counts."""

    process: Process
    address: str
    pids: list[int]
    spec: str = ""

    def answers(self, path, headers=()):
        self.process.answers(self.address, path, headers)


@dataclasses.dataclass
class Behind:
    """What is behind an edge of Forebay: Redis and the handlers."""

    keys: Path
    handlers: int
    redis: int
    redis_port: int

    @property
    def pids(self):
        return [self.handlers, self.redis]


def _edge(scene, name, program, mode, workers=1, core=SERVER_CORE):
    address, spec = f"127.0.0.1:{free_port()}", f"ipc://{scene.directory}/edge"
    command = [*program, f"--listen={address},{mode}", f"--workers={workers}", f"--{mode}-maxconn={CONNECTIONS_MAX}"]
    command.append(f"--zclient-{mode}={spec}")
    process = scene.start(name, command, core)
    return Server(process, address, [process.pid], spec)


def forebay(scene, mode="stream", workers=1, core=SERVER_CORE):
    return _edge(scene, "forebay", [machine.FOREBAY, "connmgr"], mode, workers, core)


def condure(scene, mode="stream"):
    if not shutil.which("condure"):
        raise Absent("condure is not installed")
    return _edge(scene, "condure", ["condure"], mode)


def peer_handler(scene, edge, mode):
    """A plain handler behind an edge; in mode hold, the address where it takes what is to be published."""
    process = scene.start("peer-handler", [TOOLS / "peer-handler", f"--mode={mode}", f"--spec={edge.spec}"])
    edge.answers("/ready")
    return process.says(r"^listening on (\S+)")[1] if mode == "hold" else None


def bare(scene, kind):
    process = scene.start("bare", [TOOLS / "bare", kind], SERVER_CORE)
    return Server(process, process.says(r"^listening on (\S+)")[1], [process.pid])


def redis(scene, core=machine.OTHER_CORE, first=False):
    """Redis as the README asks for it; its process and where it is."""
    if not shutil.which("redis-server"):
        raise Absent("redis-server is not installed")
    port = free_port()
    command = ["redis-server", f"--port {port}", "--save ''", "--appendonly yes", "--appendfsync everysec"]
    command += ["--maxmemory-policy noeviction", f"--dir {scene.directory}"]
    process = scene.start("redis", " ".join(command).replace("''", '""').split(), core, first)
    process.says("Ready to accept connections")
    return process, port


def behind(scene, edge, core=machine.OTHER_CORE, redis_core=machine.OTHER_CORE, first=False):
    """Redis, and one process with all roles of Forebay's handlers, whose channels have no limit of events a second."""
    store, port = redis(scene, redis_core, first)
    keys = Path(scene.directory) / "data"
    command = [machine.FOREBAY, "handler", "--role=publish,fanout", f"--edge={edge.spec}", f"--redis=redis://127.0.0.1:{port}/"]
    command += [f"--data-dir={keys}", "--channel-rate=0", "--idle-ttl=1h", "--id=handler", "--requests-max=0"]
    handlers = scene.start("handler", command, core, first)
    handlers.until((keys / "keys").is_dir, "its keys")
    edge.answers(f"/channels/{ORG}/ready/head", [authorization(keys)])
    return Behind(keys, handlers.pid, store.pid, port)


def up(scene, core=SERVER_CORE):
    """All of Forebay in one process, with the embedded store; and the directory of its keys."""
    keys = Path(scene.directory) / "data"
    command = [machine.FOREBAY, "up", "--listen=127.0.0.1:0", f"--data-dir={keys}", "--channel-rate=0", "--idle-ttl=1h"]
    process = scene.start("up", command, core)
    address = process.says(r"^ready http://(\S+)")[1]
    return Server(process, address, [process.pid]), keys


def authorization(keys, role="subscribe"):
    """A header field that lets a client read or publish everything."""
    command = [machine.FOREBAY, "token", role, f"--org={ORG}", "--ttl=1d", f"--data-dir={keys}"]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return f"Authorization: Bearer {token}"


NGINX = """
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
{user}
pid {root}/nginx.pid;
error_log {root}/error.log warn;
# Connections that wait for a request are closed when fewer than a sixteenth of these are left.
events {{ worker_connections 24000; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    client_header_timeout 3600s;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    server {{
        listen {address} backlog=4096;
        location = /hello {{ default_type text/plain; return 200 "hello world\\n"; }}
        location = /sub {{
            nchan_subscriber eventsource websocket;
            nchan_channel_id $arg_ch;
            nchan_subscriber_first_message newest;
        }}
        location = /pub {{ nchan_publisher http; nchan_channel_id $arg_ch; nchan_message_timeout 1m; }}
    }}
}}
"""


def nginx(scene):
    """nginx with nchan, one worker: a static answer, and publish and subscribe."""
    if not shutil.which("nginx") or not Path("/usr/lib/nginx/modules/ngx_nchan_module.so").exists():
        raise Absent("nginx with nchan is not installed")
    address = f"127.0.0.1:{free_port()}"
    # Started as root, its workers would be somebody else's, who may not enter the directory.
    user = "user root;" if machine.os.geteuid() == 0 else ""
    config = Path(scene.directory) / "nginx.conf"
    config.write_text(NGINX.format(root=scene.directory, address=address, user=user))
    process = scene.start("nginx", ["nginx", "-p", scene.directory, "-c", config, "-e", f"{scene.directory}/error.log"], SERVER_CORE)
    process.answers(address, "/hello")
    return Server(process, address, [process.pid, *machine.children(process.pid)])
