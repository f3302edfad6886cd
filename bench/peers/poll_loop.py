"""What many kiosks run today: look every 5 s with psutil whether the player is there, start it if not.

poll_loop.py NAME PROGRAM ARGUMENT…
"""

import subprocess
import sys
import time

import psutil

name, *command = sys.argv[1:]
while True:
    running = [
        process
        for process in psutil.process_iter(["name", "status"])
        if process.info["name"] == name and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    if not running:
        subprocess.Popen(command)
    time.sleep(5)
