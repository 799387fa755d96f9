"""The one writer of its volume: says in the volume itself when another one has it, too."""

import fcntl
import time

lock = open("/data/lock", "w")  # noqa: SIM115 - held for ever
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    with open("/data/twice", "a") as file:
        file.write("two writers\n")
while True:
    try:
        with open("/data/now", "w") as file:
            file.write(str(time.time()))
    except OSError:
        pass
    time.sleep(0.2)
