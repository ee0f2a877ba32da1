"""Processes are known by pid and start time, restarted when they end, and found again by the next supervisor."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lablease.embedded.paths import DataDir
from lablease.embedded.process import (
    Identity,
    claim,
    is_locked,
    locked,
    recall,
    remember,
    start_time,
    stop,
    stop_orphans,
)
from lablease.embedded.supervise import (
    FIRST_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    SETTLED_SECONDS,
    Command,
    Supervised,
    log_tail,
    next_delay,
)
from lablease.embedded.testing import registered


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(["sleep", "600"])
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    yield process
    process.kill()
    reaper.join()


def test_a_process_is_itself_as_long_as_it_lives(sleeper: "subprocess.Popen[bytes]") -> None:
    identity = Identity(sleeper.pid, start_time(sleeper.pid) or "")
    assert identity.alive
    assert stop(identity)
    assert not identity.alive


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_old_one(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    (tmp_path / "etcd.json").write_text(json.dumps({"pid": sleeper.pid, "started": "another boot/1"}))
    assert stop_orphans(tmp_path, ("etcd",)) == []
    assert start_time(sleeper.pid) is not None
    assert not (tmp_path / "etcd.json").exists()


def test_orphans_are_ended_services_first_and_etcd_last(tmp_path: Path) -> None:
    names = ["etcd", "kube-apiserver", "operator", "frontend"]
    processes = [subprocess.Popen(["sleep", "600"]) for _ in names]
    reapers = [threading.Thread(target=process.wait) for process in processes]
    for name, process, reaper in zip(names, processes, reapers, strict=True):
        remember(tmp_path / f"{name}.json", process.pid)
        reaper.start()
    assert stop_orphans(tmp_path, ("kube-apiserver", "etcd")) == ["frontend", "operator", "kube-apiserver", "etcd"]
    for reaper in reapers:
        reaper.join(10)
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ignores_term_is_killed() -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    assert stop(Identity(process.pid, start_time(process.pid) or ""), patience_seconds=0.1) is False
    reaper.join(10)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x", "started": "1"}', '{"pid": 1}'])
def test_a_damaged_pid_file_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "etcd.json").write_text(content)
    assert recall(tmp_path / "etcd.json") is None
    assert stop_orphans(tmp_path, ()) == []


def test_a_lock_is_held_by_one_and_says_by_whom(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_locked(lock)
    assert not lock.exists()
    with locked(lock) as mine:
        assert mine
        claim(lock)
        with locked(lock) as second:
            assert not second
        assert is_locked(lock)
        assert recall(lock) == Identity(os.getpid(), start_time(os.getpid()) or "")
    assert not is_locked(lock)


def test_the_wait_before_a_restart_doubles_up_to_its_limit_and_begins_anew_after_a_long_run() -> None:
    assert next_delay(0.1, 0.0) == 0.2
    assert next_delay(10.0, SETTLED_SECONDS - 0.1) == LONGEST_DELAY_SECONDS
    assert next_delay(LONGEST_DELAY_SECONDS, 1.0) == LONGEST_DELAY_SECONDS
    assert next_delay(10.0, SETTLED_SECONDS) == FIRST_DELAY_SECONDS


def supervised(
    tmp_path: Path, *argv: str, on_event: Callable[[str, str], None] = lambda name, event: None
) -> Supervised:
    command = Command("thing", argv, {"PATH": os.environ["PATH"]}, tmp_path, tmp_path / "thing.log")
    return Supervised(command, tmp_path / "thing.json", on_event)


def test_a_killed_process_is_started_again_and_its_pid_file_follows(tmp_path: Path) -> None:
    process = supervised(tmp_path, "sleep", "600")
    process.start()
    first = process.identity
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: process.restarts == 1 and process.alive, "the restart")
    assert recall(tmp_path / "thing.json") == process.identity != first
    process.stop()
    assert not process.alive
    assert not (tmp_path / "thing.json").exists()


def test_a_process_that_ends_at_once_can_be_stopped_between_two_runs(tmp_path: Path) -> None:
    events: list[str] = []
    process = supervised(tmp_path, "sh", "-c", "echo broken; exit 7", on_event=lambda name, event: events.append(event))
    process.start()
    wait_for(lambda: "exited 7, again in 0.4 s" in events, "the third exit")
    process.stop()
    assert process.last_exit == 7
    assert events[:4] == ["started", "exited 7, again in 0.1 s", "started", "exited 7, again in 0.2 s"]
    assert log_tail(tmp_path / "thing.log", 2) == "broken\nbroken"


def test_a_program_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        supervised(tmp_path, "/nonexistent/etcd").start()


def test_nothing_of_the_supervisors_environment_leaks_into_a_process(tmp_path: Path) -> None:
    process = supervised(tmp_path, "sh", "-c", "env; exec sleep 600")
    process.start()
    wait_for(lambda: "PATH=" in log_tail(tmp_path / "thing.log", 100), "the output of env")
    process.stop()
    assert {line.partition("=")[0] for line in log_tail(tmp_path / "thing.log", 100).splitlines()} <= {
        "PATH",
        "PWD",
        "SHLVL",
        "OLDPWD",
        "_",
    }


def test_what_a_killed_test_run_left_behind_is_ended_by_the_next_one(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, data = subprocess.Popen(["sleep", "600"]), DataDir(tmp_path / "earlier")
    reaper = threading.Thread(target=left.wait)
    reaper.start()
    data.make()
    remember(data.run / "etcd.json", left.pid)
    runs = tmp_path / "runs"
    runs.mkdir()
    note = {"pid": dead.pid, "started": "long ago", "root": str(data.root)}
    (runs / "1.json").write_text(json.dumps(note))
    with registered(runs, DataDir(tmp_path / "now")):
        reaper.join(10)
        assert left.returncode == -signal.SIGTERM
        assert [recall(path) for path in runs.iterdir()] == [Identity(os.getpid(), start_time(os.getpid()) or "")]
    assert list(runs.iterdir()) == []
