"""nchan, the nginx module: whether it is installed, and its configuration."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from bench_servers import BACKLOG

__all__ = ["INSTALL", "installed", "nchan"]

INSTALL: Final = "apt-get install nginx libnginx-mod-nchan"

# Where Debian puts it.
MODULE: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

# One process, so that its figures are the server's; messages are kept for those who reconnect, as
# many as a client of the other hubs may be behind.
CONFIGURATION: Final = """\
load_module {module};
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {{
  worker_connections 20000;
  multi_accept on;
}}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path temporary;
  proxy_temp_path temporary;
  fastcgi_temp_path temporary;
  uwsgi_temp_path temporary;
  scgi_temp_path temporary;
  nchan_shared_memory_size 256M;
  server {{
    listen 127.0.0.1:{port} backlog={backlog};
    location = /statistics {{
      return 200;
    }}
    location = /publish {{
      nchan_publisher;
      nchan_channel_id bench;
      nchan_message_buffer_length 256;
      nchan_message_timeout 10s;
    }}
    location = /subscribe {{
      nchan_subscriber eventsource;
      nchan_channel_id bench;
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


def installed() -> bool:
    """Tell whether there is an nginx with the module."""
    return _nginx() is not None and MODULE.exists()


def nchan(port: int, programs: Path) -> list[str]:
    """Write the configuration, and return the command that serves it."""
    folder = programs.parent / "nchan"
    folder.mkdir(exist_ok=True)
    text = CONFIGURATION.format(module=MODULE, port=port, backlog=BACKLOG)
    (folder / "nginx.conf").write_text(text)
    nginx = _nginx() or "nginx"
    return [nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _nginx() -> str | None:
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
