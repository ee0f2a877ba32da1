"""What runs "on" the demo board: boot messages, then a shell that answers. Standard library only, run by path."""

import sys
import time

BOOT = (
    "U-Boot 2026.07 (demo)",
    "DRAM:  512 MiB",
    "Loading kernel ... OK",
    "[    0.000000] Booting Linux on physical CPU 0x0",
    "[    0.104211] Memory: 498304K/524288K available",
    "[    0.311873] devtmpfs: mounted",
    "[    0.502330] Run /sbin/init as init process",
)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\r\n")
    sys.stdout.flush()


def answer(line: str, name: str, started: float) -> str:
    """Return what the shell prints for a command line."""
    command, _, rest = line.strip().partition(" ")
    match command:
        case "":
            return ""
        case "echo":
            return rest
        case "uname":
            return f"Linux {name} 6.18.0-demo armv7l"
        case "uptime":
            return f"up {time.monotonic() - started:.1f} s"
        case "help":
            return "echo TEXT, uname, uptime, help"
        case _:
            return f"sh: {command}: not found"


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "board"
    started = time.monotonic()
    for line in BOOT:
        say(line)
        time.sleep(0.02)  # a console that scrolls is part of the demo
    say("")
    prompt = f"root@{name}:~# "
    sys.stdout.write(prompt)
    sys.stdout.flush()
    line = ""
    while character := sys.stdin.read(1):
        if character in "\r\n":
            sys.stdout.write("\r\n")
            if text := answer(line, name, started):
                say(text)
            sys.stdout.write(prompt)
            line = ""
        else:
            sys.stdout.write(character)
            line += character
        sys.stdout.flush()


if __name__ == "__main__":
    main()
