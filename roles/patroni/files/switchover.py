#!/usr/bin/python3
"""Move the leader, and say how long no write came through: a commit every 20 ms, over a new connection each.

switchover.py CLUSTER TARGET DSN    a target of "" is the member that has every commit; prints one JSON object
"""

import json
import subprocess
import sys
import threading
import time

import psycopg2

# A commit that waits for the other member as any does, and leaves nothing behind
PROBE = "SELECT pg_logical_emit_message(true, 'groundcrew', 'switchover')"
STEADY, LONGEST = 3.0, 60.0


def write(dsn: str) -> bool:
    try:
        connection = psycopg2.connect(dsn)
    except psycopg2.Error:
        return False
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(PROBE)
    except psycopg2.Error:
        return False
    finally:
        connection.close()
    return True


def main() -> int:
    cluster, target, dsn = sys.argv[1:]
    if not write(dsn):
        print(json.dumps({"problem": "no write comes through before anything is moved"}))
        return 1
    successes = [time.monotonic()]
    ended = threading.Event()

    def probe() -> None:
        while not ended.is_set():
            if write(dsn):
                successes.append(time.monotonic())
            ended.wait(0.02)

    prober = threading.Thread(target=probe, daemon=True)
    prober.start()
    begin = time.monotonic()
    command = ["patronictl", "-c", "/etc/patroni/config.yml", "switchover", "--force", *(["--candidate", target] if target else []), cluster]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    moved = time.monotonic()
    # Until writes have come through for a while again
    while time.monotonic() < moved + LONGEST and not (successes[-1] > moved and time.monotonic() > moved + STEADY):
        ended.wait(0.1)
    ended.set()
    prober.join(LONGEST)
    gaps = [later - earlier for earlier, later in zip(successes, successes[1:]) if later > begin]
    said = f"{done.stdout}\n{done.stderr}"
    print(json.dumps({"seconds": round(max(gaps, default=LONGEST), 2), "moved": "Successfully" in said, "said": said.strip()}))
    return 0 if "Successfully" in said else 1


if __name__ == "__main__":
    sys.exit(main())
