"""Looking into a hostile image: names resolve inside it, nothing leads out."""

from __future__ import annotations

import os

import pytest

from agent.errors import Refusal
from agent.runtime import rootfs
from agent.runtime.bundle import User
from agent.vocabulary import BoundMount
from specs.stack import Device

PASSWD = [
    ["root", "x", "0", "0", "root", "/root", "/bin/sh"],
    ["app", "x", "1000", "1001", "", "/home/app", "/bin/sh"],
    ["bad", "x", "-1", "0", "", "", ""],
]
GROUP = [["root", "x", "0", ""], ["app", "x", "1001", ""], ["wheel", "x", "10", "app,root"]]


@pytest.mark.parametrize(
    ("user", "extra", "wanted"),
    [
        ("", (), User(0, 0, (10,), "/root")),
        ("app", (), User(1000, 1001, (10,), "/home/app")),
        ("1000", (), User(1000, 1001, (10,), "/home/app")),
        ("app:wheel", (), User(1000, 10, (), "/home/app")),
        ("app:77", (), User(1000, 77, (), "/home/app")),
        ("4242", (), User(4242, 0, (), "/")),
        ("4242:5", (), User(4242, 5, (), "/")),
        ("app", ("5", "root"), User(1000, 1001, (10, 5, 0), "/home/app")),
    ],
)
def test_users(user, extra, wanted):
    assert rootfs.find_user(PASSWD, GROUP, user, extra) == wanted


@pytest.mark.parametrize(
    ("user", "extra", "words"),
    [
        ("nobody", (), "user 'nobody' is not in"),
        ("app:none", (), "group 'none' is not in"),
        ("app", ("none",), "group 'none'"),
        ("\N{ARABIC-INDIC DIGIT THREE}", (), "is not in the image's"),
        ("\N{SUPERSCRIPT TWO}", (), "is not in the image's"),
        ("app:\N{ARABIC-INDIC DIGIT THREE}", (), "is not in the image's"),
        ("bad", (), "is not a number"),
        ("4294967296", (), "is not a number from 0"),
    ],
)
def test_users_that_do_not_exist(user, extra, words):
    with pytest.raises(Refusal, match=words):
        rootfs.find_user(PASSWD, GROUP, user, extra)


def binds(*targets, **sources):
    """Mounts of nothing in particular at ``targets``, and of a folder at each key's place."""
    made = [BoundMount("/nowhere", target) for target in targets]
    return [BoundMount(str(place), f"/{name}") for name, place in sources.items()] + made


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    for name in ("dev", "proc", "sys", "etc", "data"):
        (root / name).mkdir(parents=True)
    (tmp_path / "secret").write_text("root:x:0:0::/stolen:/bin/sh\n")
    return root


def test_passwd_that_is_a_symlink_out_is_read_inside(root, tmp_path):
    (root / "etc/passwd").symlink_to(tmp_path / "secret")
    assert rootfs.resolve_user(root, "0").home == "/"
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../../etc/real")
    (root / "etc/real").write_text("root:x:0:0::/inside:/bin/sh\n")
    assert rootfs.resolve_user(root, "0").home == "/inside"


def test_passwd_that_is_a_fifo_does_not_hang(root):
    os.mkfifo(root / "etc/passwd")
    assert rootfs.resolve_user(root, "7").uid == 7


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_roots_the_runtime_could_be_led_out_of(root, name):
    (root / name).rmdir()
    (root / name).symlink_to("/tmp")
    with pytest.raises(Refusal, match=f"/{name} is not a directory"):
        rootfs.check(root, cwd="/", mounts=())


def test_mount_targets(root):
    (root / "run").mkdir()
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    rootfs.check(root, cwd="/", mounts=binds("/var/run/x.sock", "/data", "/new/one", "/dev/x"))
    (root / "evil").symlink_to("/proc/self")
    (root / "proc/self").mkdir()
    with pytest.raises(Refusal, match="leads to"):
        rootfs.check(root, cwd="/", mounts=binds("/evil"))


def test_working_dir_is_made_inside_and_never_in_proc(root, tmp_path):
    assert rootfs.check(root, cwd="/srv/app", mounts=()) == "/srv/app"
    assert (root / "srv/app").is_dir()
    (root / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(Refusal):
        rootfs.check(root, cwd="/out/x", mounts=())
    assert not (tmp_path / "outside").exists()
    for number in range(3, 31):
        with pytest.raises(Refusal, match="/proc"):
            rootfs.check(root, cwd=f"/proc/self/fd/{number}", mounts=())
    (root / "link").symlink_to("/proc")
    with pytest.raises(Refusal, match="/proc"):
        rootfs.check(root, cwd="/link", mounts=())


def test_devices(tmp_path):
    found = rootfs.node_devices([Device(source="/dev/null", target="/dev/x", permissions="r")])
    assert [(d.path, d.kind, d.major, d.minor, d.access) for d in found] == [
        ("/dev/x", "c", 1, 3, "r")
    ]
    with pytest.raises(Refusal, match="not a device"):
        rootfs.node_devices([Device(source="/etc/hostname", target="/x")])
    with pytest.raises(Refusal, match="it is not there"):
        rootfs.node_devices([Device(source="/dev/none", target="/x")])


# what the image holds at /way (a link), what is mounted -> where it leads in the container
LINKS = {
    "into /proc, where the image has nothing": ("/proc/sys", "/way", "/proc/sys"),
    "a folder of the image into /proc": ("/proc", "/way/sys/kernel", "/proc/sys/kernel"),
    "by dots": ("../../proc/sys", "/way", "/proc/sys"),
    "over another link": ("/etc/next", "/way", "/proc/sys"),
    "to /sys": ("/sys/kernel", "/way", "/sys/kernel"),
    "through a volume's link": ("/data", "/way/out", "/proc/self"),
    "in a volume": ("", "/vol/out", "/proc/self"),
    "to a folder like any other": ("/data", "/way/x", "/data/x"),
    "covered by a mount": ("/vol", "/way/in", "/vol/in"),
    "nothing yet": ("", "/way/new/one", "/way/new/one"),
}


@pytest.mark.parametrize("case", LINKS)
def test_where_a_mount_lands(root, tmp_path, case):
    link, target, wanted = LINKS[case]
    (root / "etc/next").symlink_to("/proc/sys")
    (root / "data/out").symlink_to("/proc/self")
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "out").symlink_to("../../../proc/self")
    if link:
        (root / "way").symlink_to(link)
    mounts = binds(target, vol=volume)
    sources = {mount.target: mount.source for mount in mounts}
    assert rootfs.landing(root, target, sources) == wanted
    if wanted.startswith(("/proc", "/sys")):
        with pytest.raises(Refusal, match=f"leads to {wanted} through a symlink"):
            rootfs.check(root, cwd="/", mounts=mounts)
    else:
        rootfs.check(root, cwd="/", mounts=mounts)


def test_a_link_to_itself_is_refused(root):
    (root / "way").symlink_to("way")
    with pytest.raises(Refusal):
        rootfs.check(root, cwd="/", mounts=binds("/way"))
    with pytest.raises(Refusal, match="too many symlinks"):
        rootfs.landing(root, "/way", {})
