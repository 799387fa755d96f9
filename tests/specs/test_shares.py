"""What driver_opts of a local volume mean, and what is refused of them."""

from __future__ import annotations

import pytest

from specs import shares
from specs.shares import Share, VolumeFault

NFS4 = (("addr", "10.1.2.3"), ("nfsvers", "4"), ("soft", ""))
MEANT = {
    "nothing": ({}, None),
    "a variable that is not set": ({"type": "", "device": ""}, None),
    "nfs as Docker's page has it": (
        {"type": "nfs", "o": "addr=10.1.2.3,rw,nfsvers=4,soft", "device": ":/export"},
        Share("nfs", ":/export", (), NFS4, "10.1.2.3"),
    ),
    "nfs by the device": (
        {"type": "nfs4", "o": "ro", "device": "files.example:/a/b"},
        Share("nfs4", "files.example:/a/b", ("ro",), (), "files.example"),
    ),
    "nfs over IPv6": (
        {"type": "nfs", "device": "[fd00::1]:/x"},
        Share("nfs", "[fd00::1]:/x", (), (), "fd00::1"),
    ),
    "cifs": (
        {"type": "cifs", "o": "username=u,password=p=x,vers=3.0", "device": "//nas/share"},
        Share(
            "cifs",
            "//nas/share",
            (),
            (("username", "u"), ("password", "p=x"), ("vers", "3.0")),
            "nas",
        ),
    ),
    "tmpfs": (
        {"type": "tmpfs", "device": "tmpfs", "o": "size=100m,uid=1000,noexec"},
        Share("tmpfs", "tmpfs", ("noexec",), (("size", "100m"), ("uid", "1000"))),
    ),
    "bind": ({"type": "none", "o": "bind", "device": "/srv/data/"}, Share("bind", "/srv/data")),
    "bind without a type": ({"o": "bind,ro", "device": "/srv"}, Share("bind", "/srv", ("ro",))),
    "rbind": (
        {"type": "none", "o": "rbind", "device": "/srv"},
        Share("bind", "/srv", recursive=True),
    ),
    "words of fstab": (
        {"type": "tmpfs", "o": "defaults,_netdev,nofail", "device": "x"},
        Share("tmpfs", "tmpfs"),
    ),
}


@pytest.mark.parametrize("case", MEANT)
def test_what_options_mean(case):
    options, share = MEANT[case]
    assert shares.read(options) == share
    assert shares.is_shared(options) is (share is not None and share.network)


REFUSED = {
    "a file system on a disk": ({"type": "ext4", "device": "/dev/sda1"}, "type 'ext4'"),
    "the processes of the node": ({"type": "proc", "device": "proc"}, "type 'proc'"),
    "its cgroups": ({"type": "cgroup2", "device": "x"}, "type 'cgroup2'"),
    "an overlay of any folders": ({"type": "overlay", "o": "lowerdir=/etc"}, "type 'overlay'"),
    "a program as file system": ({"type": "fuse.sshfs", "device": "h:/"}, "type 'fuse.sshfs'"),
    "no type": ({"device": "/srv"}, "no type"),
    "none without bind": ({"type": "none", "device": "/srv"}, "needs o: bind"),
    "bind of a share": ({"type": "nfs", "o": "bind", "device": "h:/x"}, "is no bind"),
    "another option": ({"type": "tmpfs", "size": "1g"}, "no option 'size'"),
    "set-user-ID programs": ({"type": "nfs", "o": "suid", "device": "h:/x"}, "suid"),
    "devices": ({"type": "tmpfs", "o": "dev"}, "dev"),
    "an option of another": ({"type": "tmpfs", "o": "nfsvers=4"}, "'nfsvers' is no option"),
    "propagation": ({"type": "none", "o": "bind,shared", "device": "/x"}, "'shared'"),
    "remount": ({"type": "tmpfs", "o": "remount"}, "'remount'"),
    "a file with passwords": (
        {"type": "cifs", "o": "credentials=/etc/shadow", "device": "//h/s"},
        "credentials",
    ),
    "a relative folder": ({"type": "none", "o": "bind", "device": "data"}, "not an absolute"),
    "a way out": ({"type": "none", "o": "bind", "device": "/srv/../etc"}, "not an absolute"),
    "no folder": ({"type": "none", "o": "bind"}, "no device"),
    "no export": ({"type": "nfs", "o": "addr=h", "device": "/export"}, "names no export"),
    "no server": ({"type": "nfs", "device": ":/export"}, "no server"),
    "no share": ({"type": "cifs", "device": "//host"}, "names no share"),
    "a line end": ({"type": "nfs", "device": "h:/x\ny"}, "control characters"),
    "a NUL": ({"type": "tmpfs", "o": "size=1\0,uid=0"}, "no word"),
    "a space": ({"type": "tmpfs", "o": "size=1 m"}, "no word"),
    "too much": ({"type": "tmpfs", "o": ",".join(["size=100000m"] * 400)}, "longer than"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    options, words = REFUSED[case]
    with pytest.raises(VolumeFault) as refused:
        shares.read(options)
    assert words in str(refused.value)
    assert refused.value.hint
    assert not shares.is_shared(options)


def test_a_password_is_not_shown():
    options = {"type": "cifs", "o": "username=u,password=deep,pass=d2,ro", "device": "//h/s"}
    assert shares.shown(options)["o"] == "username=u,password=***,pass=***,ro"
