# SPDX-License-Identifier: Apache-2.0
#
# Runs the servers of one Swift until standard input ends: servers.py DIR MEMCACHED-PORT
# ACCOUNT-PORT CONTAINER-PORT OBJECT-PORT. DIR has their configurations, and gets their rings.
# They are children of one process that has read their code once, and end with it.

import ctypes
import getpass
import os
import signal
import subprocess
import sys

from swift.common import utils

top, memcached = sys.argv[1:3]
utils.set_swift_dir(top)  # and not that of this machine

from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import run_wsgi  # noqa: E402
from swift.obj import server as obj  # noqa: E402
import swift.account.server, swift.container.server, swift.proxy.server  # noqa: E401, E402, F401


def with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def spawn(section, **kwargs):
    if os.fork() == 0:
        with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.exit(run_wsgi(os.path.join(top, section + ".conf"), section + "-server", verbose=True, **kwargs))


for name, port in zip(("account", "container", "object"), sys.argv[3:]):
    builder = RingBuilder(int(os.environ["PART_POWER"]), 1, 1)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": int(port), "device": "d1",
                     "replication_ip": "127.0.0.1", "replication_port": int(port), "meta": ""})
    builder.rebalance()
    builder.get_ring().save(os.path.join(top, name + ".ring.gz"))

subprocess.Popen(["memcached", "-l", "127.0.0.1", "-p", memcached, "-u", getpass.getuser()],
                 stdin=subprocess.DEVNULL, preexec_fn=with_parent)
spawn("account")
spawn("container")
spawn("object", global_conf_callback=obj.global_conf_callback)
spawn("proxy")

# One that ends, since somebody else has its port, ends all.
signal.signal(signal.SIGCHLD, lambda *_: os._exit(1))
if os.waitpid(-1, os.WNOHANG)[0] == 0:
    sys.stdin.read()
